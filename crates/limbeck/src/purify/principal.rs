//! Principal components of the activations of one class, by orthogonal iteration (Golub & Van Loan, Matrix Computations, section 8.2.4).

use rand::Rng as _;

use crate::rng::Seed;

/// Rounds at most. Components of nearly equal variance turn within the space that they span for longer, which changes no distance there.
const ROUNDS: usize = 200;

/// Largest 1 − |cos| between a component and itself a round earlier.
const TOLERANCE: f64 = 1e-9;

/// Mean and directions of largest variance of a class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PrincipalComponents {
    mean: Vec<f64>,
    /// Unit vectors, by falling variance; null vectors where nothing varies any more.
    directions: Vec<Vec<f64>>,
}

impl PrincipalComponents {
    /// The first `count` components of rows of equal length, or all if there are fewer.
    pub(super) fn fit(rows: &[&[f32]], count: usize) -> Self {
        let mean = mean(rows);
        let covariance = covariance(rows, &mean);
        // Twice as many as are asked for, so that the last one converges as fast as the others.
        let guarded = (2 * count).min(mean.len());
        // At random: orthogonal to none of the components.
        let mut rng = Seed::new(0).rng("principal components");
        let mut start = || (0..mean.len()).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
        let mut directions: Vec<Vec<f64>> = (0..guarded).map(|_| start()).collect();
        orthonormalise(&mut directions);
        for _ in 0..ROUNDS {
            let mut turned: Vec<Vec<f64>> =
                directions.iter().map(|direction| product(&covariance, direction)).collect();
            orthonormalise(&mut turned);
            let settled = directions
                .iter()
                .zip(&turned)
                .take(count)
                .all(|(old, new)| 1.0 - dot(old, new).abs() < TOLERANCE || dot(new, new) == 0.0);
            directions = turned;
            if settled {
                break;
            }
        }
        directions.truncate(count);
        Self { mean, directions }
    }

    /// Coordinates of a row along the components, from the mean of the class.
    pub(super) fn project(&self, row: &[f32]) -> Vec<f64> {
        let centred: Vec<f64> =
            row.iter().zip(&self.mean).map(|(value, mean)| f64::from(*value) - mean).collect();
        self.directions.iter().map(|direction| dot(direction, &centred)).collect()
    }
}

fn mean(rows: &[&[f32]]) -> Vec<f64> {
    let mut mean = vec![0.0; rows.first().map_or(0, |row| row.len())];
    for row in rows {
        mean.iter_mut().zip(*row).for_each(|(sum, value)| *sum += f64::from(*value) / rows.len() as f64);
    }
    mean
}

/// Σ (row − mean)(row − mean)ᵀ / n, row by row.
fn covariance(rows: &[&[f32]], mean: &[f64]) -> Vec<Vec<f64>> {
    let mut covariance = vec![vec![0.0; mean.len()]; mean.len()];
    for row in rows {
        let centred: Vec<f64> = row.iter().zip(mean).map(|(value, mean)| f64::from(*value) - mean).collect();
        for (line, value) in covariance.iter_mut().zip(&centred) {
            add_multiple(line, value / rows.len() as f64, &centred);
        }
    }
    covariance
}

/// Product of a symmetric matrix and a vector.
fn product(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    let mut product = vec![0.0; vector.len()];
    matrix.iter().zip(vector).for_each(|(line, value)| add_multiple(&mut product, *value, line));
    product
}

/// Gram and Schmidt's; a vector that lies in the span of those before it becomes null.
fn orthonormalise(vectors: &mut [Vec<f64>]) {
    for index in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(index);
        let vector = &mut rest[0];
        let length = dot(vector, vector).sqrt();
        // Twice: the first pass leaves rounding errors of the size of what it takes away.
        for other in before.iter().chain(before.iter()) {
            let along = dot(vector, other);
            add_multiple(vector, -along, other);
        }
        let left = dot(vector, vector).sqrt();
        let scale = if left > 1e-12 * length { left.recip() } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= scale);
    }
}

fn add_multiple(sum: &mut [f64], factor: f64, of: &[f64]) {
    sum.iter_mut().zip(of).for_each(|(sum, value)| *sum += factor * value);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(rows: &[Vec<f32>]) -> Vec<&[f32]> {
        rows.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn the_axes_of_a_cross_are_its_components_in_the_order_of_its_arms() {
        // Arms of 3 along (0.6, 0.8) and of 1 along (−0.8, 0.6), around (5, −2).
        let rows: Vec<Vec<f32>> = [(3.0, 0.0), (-3.0, 0.0), (0.0, 1.0), (0.0, -1.0)]
            .map(|(u, v)| vec![5.0 + 0.6 * u - 0.8 * v, -2.0 + 0.8 * u + 0.6 * v])
            .to_vec();
        let components = PrincipalComponents::fit(&slices(&rows), 2);
        for (row, expected) in rows.iter().zip([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]]) {
            let found = components.project(row);
            // Signs are free.
            assert!(found.iter().zip(expected).all(|(a, b)| (a.abs() - b).abs() < 1e-4), "{found:?}");
        }
    }

    #[test]
    fn what_does_not_vary_has_no_direction() {
        let rows = vec![vec![1.0, 2.0, 3.0]; 12];
        assert_eq!(PrincipalComponents::fit(&slices(&rows), 10).project(&[4.0, 4.0, 4.0]), [0.0; 3]);
        // One axis alone varies: the others must not be found in rounding errors.
        let rows: Vec<Vec<f32>> = (0..12_u8).map(|step| vec![f32::from(step) / 3.0, 0.7, 0.0]).collect();
        let [along, second, third] = PrincipalComponents::fit(&slices(&rows), 3).project(&rows[0])[..] else {
            unreachable!("three components")
        };
        assert!((along.abs() - 11.0 / 6.0).abs() < 1e-6 && second.abs() + third.abs() < 1e-6);
    }
}
