//! Random numbers: every draw takes an explicit generator, and sub-seeds are derived by name.
//!
//! A stage that is added, skipped or resumed therefore never shifts the draws of another one.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator used everywhere: small, fast, the same numbers on every machine.
pub type Rng = ChaCha8Rng;

/// A seed that spawns generators by name.
///
/// ```
/// use limbeck::rng::Seed;
/// use rand::RngCore;
///
/// let seed = Seed::new(7);
/// assert_eq!(seed.rng("teacher").next_u64(), seed.rng("teacher").next_u64());
/// assert_ne!(seed.rng("teacher").next_u64(), seed.rng("student").next_u64());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root seed of a run.
    pub fn new(seed: u64) -> Self {
        Self(*blake3::Hasher::new().update(b"limbeck seed").update(&seed.to_le_bytes()).finalize().as_bytes())
    }

    /// A seed below this one, for a part of the work with this name.
    pub fn child(self, name: &str) -> Self {
        Self(*blake3::keyed_hash(&self.0, name.as_bytes()).as_bytes())
    }

    /// A seed below this one, for step `index` of a loop.
    pub fn step(self, index: usize) -> Self {
        self.child(&format!("step {index}"))
    }

    /// A generator for a part of the work with this name.
    pub fn rng(self, name: &str) -> Rng {
        Rng::from_seed(self.child(name).0)
    }
}
