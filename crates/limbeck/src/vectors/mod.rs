//! Feature vectors: tables of numbers instead of images, with classes or quantities to predict.
//!
//! The same method: rows are audited by a denoising autoencoder, its detection head and networks that did not learn from them; the table is purified, a student is distilled that can
//! answer null, and all of it is attacked. A row is an "image" `[batch, 1, 1, features]` in `[0, 1]`, so the attacks of [`attack`](crate::attack) work on it; a regression is attacked along the
//! gradient of its squared error ([`SquaredError`]). eps is a share of each feature's range. Kuzlu 2022 attack and defend such a network, which predicts the beams of a mmWave
//! antenna.
//!
//! ```no_run
//! use std::path::Path;
//! use limbeck::progress::Silent;
//! use limbeck::vectors::{VectorConfig, run_vectors, vector_findings};
//!
//! let mut config = VectorConfig::resolve(None, &["distill.method=adversarial".to_owned()])?;
//! config.data.path = "beams.csv".to_owned();
//! config.data.target = vec!["beam".to_owned()];
//! let results = run_vectors(&config, Path::new("beams"), &limbeck::device("flex")?, &Silent)?;
//! vector_findings(&results).iter().for_each(|finding| println!("{finding}"));
//! # Ok::<(), limbeck::Error>(())
//! ```

mod audit;
mod autoencoder;
mod config;
mod csv_file;
mod denoise;
mod distil;
mod doubt;
mod filters;
mod findings;
mod folder;
mod folds;
mod known;
mod learn;
mod ledger;
mod lists;
mod measure;
mod network;
mod parquet_file;
mod poison;
mod predict;
pub mod results;
mod run;
mod scale;
mod set;
mod split;
mod squared_error;
mod table;
mod verdict;

pub use autoencoder::{TrainedVectorAutoencoder, VectorAutoencoder, VectorAutoencoderSpec};
pub use config::{
    DamageWeights, IntervalConfig, MlpSection, TaskChoice, VectorAudit, VectorConfig, VectorDae, VectorData,
    VectorDistill, VectorEvaluate, VectorMethod, VectorPoison, VectorPoisonKind, VectorSplit,
};
pub use doubt::VectorNull;
pub use findings::vector_findings;
pub use network::{Mlp, MlpSpec, TrainedMlp};
pub use predict::{Quantity, RowAnswer, RowContent, VectorStudent};
pub use run::run_vectors;
pub use scale::{AnswerScale, InputScale};
pub use squared_error::SquaredError;
pub use table::{Columns, RowEdit, Table};
pub use verdict::{VECTOR_SCORES, VectorScore};
