//! Activation clustering (Chen 2018): the activations of a class fall into two groups where it is poisoned, and the smaller one is the poison.
//!
//! As the paper does, each class is reduced to ten dimensions and split by 2-means; here by principal components, in place of its independent ones. The paper then
//! judges whole clusters by size and silhouette. An image's score here is w · (|r − a| − |r − b|) / |a − b| with r its reduced activations and a, b the
//! centres of the larger and the smaller cluster: −w at a, 0 half way, w at b, and never beyond. The weight w = max(0, silhouette) · (1 − 2 · share of the
//! smaller cluster) is 0 for two halves of equal size, and near 0 for one cloud cut in two.

use super::fitted::{Activations, FittedScore};
use super::principal::PrincipalComponents;

/// Dimensions that a class is reduced to (Chen 2018, section 4).
const DIMENSIONS: usize = 10;

/// Rounds of 2-means at most.
const ROUNDS: usize = 100;

/// The two clusters of each class.
pub(super) struct ActivationClustering {
    classes: Vec<Option<Clusters>>,
}

impl ActivationClustering {
    pub(super) fn fit(audited: &Activations) -> Self {
        Self { classes: audited.by_class(Clusters::fit) }
    }
}

impl FittedScore for ActivationClustering {
    fn score(&self, activations: &[f32], label: u32) -> f64 {
        let class = self.classes.get(label as usize).and_then(Option::as_ref);
        class.map_or(0.0, |class| class.score(activations))
    }
}

/// A class that was split in two.
struct Clusters {
    components: PrincipalComponents,
    larger: Vec<f64>,
    smaller: Vec<f64>,
    weight: f64,
}

impl Clusters {
    /// `None` where all images of the class are alike.
    fn fit(rows: &[&[f32]]) -> Option<Self> {
        let components = PrincipalComponents::fit(rows, DIMENSIONS);
        let points: Vec<Vec<f64>> = rows.iter().map(|row| components.project(row)).collect();
        let [larger, smaller] = two_means(&points)?.by_size();
        let share = smaller.size as f64 / points.len() as f64;
        let weight = silhouette(&points, &larger, &smaller).max(0.0) * (1.0 - 2.0 * share);
        Some(Self { components, larger: larger.centre, smaller: smaller.centre, weight })
    }

    fn score(&self, row: &[f32]) -> f64 {
        let point = self.components.project(row);
        let distance = |a: &[f64], b: &[f64]| squared_distance(a, b).sqrt();
        let nearer = distance(&point, &self.larger) - distance(&point, &self.smaller);
        self.weight * nearer / distance(&self.larger, &self.smaller)
    }
}

/// A group of points.
#[derive(Clone, Debug, PartialEq)]
struct Cluster {
    size: usize,
    centre: Vec<f64>,
    /// Mean squared distance of its points to its centre.
    variance: f64,
}

impl Cluster {
    fn of(points: &[Vec<f64>], is_member: impl Fn(usize) -> bool) -> Option<Self> {
        let members: Vec<&Vec<f64>> = points
            .iter()
            .enumerate()
            .filter(|(index, _)| is_member(*index))
            .map(|(_, point)| point)
            .collect();
        let size = members.len();
        let sum = |axis: usize| members.iter().map(|point| point[axis]).sum::<f64>();
        let centre: Vec<f64> = (0..members.first()?.len()).map(|axis| sum(axis) / size as f64).collect();
        let spread: f64 = members.iter().map(|point| squared_distance(point, &centre)).sum();
        Some(Self { size, centre, variance: spread / size as f64 })
    }
}

/// A partition in two.
#[derive(Clone, Debug, PartialEq)]
struct Split([Cluster; 2]);

impl Split {
    /// `None` where one of the two has no point.
    fn of(points: &[Vec<f64>], second: &[bool]) -> Option<Self> {
        Some(Self([
            Cluster::of(points, |index| !second[index])?,
            Cluster::of(points, |index| second[index])?,
        ]))
    }

    /// What 2-means minimises.
    fn inertia(&self) -> f64 {
        self.0.iter().map(|cluster| cluster.variance * cluster.size as f64).sum()
    }

    fn by_size(self) -> [Cluster; 2] {
        let [first, second] = self.0;
        if second.size > first.size { [second, first] } else { [first, second] }
    }
}

/// The best of as many runs of 2-means as there are axes, each started from the signs along its axis: no draw is needed, and for the first axis this is the
/// relaxed solution already (Ding & He 2004). `None` where all points are one.
fn two_means(points: &[Vec<f64>]) -> Option<Split> {
    let axes = points.first()?.len();
    (0..axes)
        .filter_map(|axis| lloyd(points, points.iter().map(|point| point[axis] > 0.0).collect()))
        .reduce(|best, other| if other.inertia() < best.inertia() { other } else { best })
}

/// Lloyd's iteration from a first assignment; `None` where a cluster is left without points.
fn lloyd(points: &[Vec<f64>], mut second: Vec<bool>) -> Option<Split> {
    let mut split = Split::of(points, &second)?;
    for _ in 0..ROUNDS {
        let [a, b] = &split.0;
        let nearer_b =
            |point: &Vec<f64>| squared_distance(point, &b.centre) < squared_distance(point, &a.centre);
        let reassigned: Vec<bool> = points.iter().map(nearer_b).collect();
        if reassigned == second {
            break;
        }
        split = Split::of(points, &reassigned)?;
        second = reassigned;
    }
    Some(split)
}

/// Mean silhouette (Rousseeuw 1987) of two clusters with squared Euclidean distances, whose mean over a cluster is the squared distance to its centre plus its variance.
fn silhouette(points: &[Vec<f64>], larger: &Cluster, smaller: &Cluster) -> f64 {
    let of = |point: &Vec<f64>| {
        let to = |cluster: &Cluster| squared_distance(point, &cluster.centre);
        let (own, other) = if to(smaller) < to(larger) { (smaller, larger) } else { (larger, smaller) };
        if own.size == 1 {
            return 0.0;
        }
        // The point itself, at distance 0, is no neighbour of its own.
        let within = (to(own) + own.variance) * own.size as f64 / (own.size - 1) as f64;
        let between = to(other) + other.variance;
        (between - within) / between.max(within)
    };
    points.iter().map(of).sum::<f64>() / points.len() as f64
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a square of half side 1 around each centre on the first axis, `copies` of each corner.
    fn squares(centres: [(f64, usize); 2]) -> Vec<Vec<f64>> {
        let corners = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)];
        let square = |(centre, copies): (f64, usize)| {
            (0..copies).flat_map(move |_| corners.map(|(x, y)| vec![centre + x, y]))
        };
        centres.into_iter().flat_map(square).collect()
    }

    #[test]
    fn two_squares_are_two_clusters() {
        let [larger, smaller] = two_means(&squares([(-2.0, 3), (6.0, 1)])).expect("two clusters").by_size();
        assert_eq!((larger.size, larger.centre, larger.variance), (12, vec![-2.0, 0.0], 2.0));
        assert_eq!((smaller.size, smaller.centre, smaller.variance), (4, vec![6.0, 0.0], 2.0));
        assert_eq!(two_means(&vec![vec![1.0, 1.0]; 5]), None);
    }

    #[test]
    fn the_silhouette_is_that_of_all_pairs() {
        let points = squares([(-2.0, 3), (3.0, 1)]);
        let [larger, smaller] = two_means(&points).expect("two clusters").by_size();
        let is_larger = |point: &[f64]| point[0] < 0.5;
        let mean_distance = |from: usize, side: bool| {
            let others =
                points.iter().enumerate().filter(|(to, point)| *to != from && is_larger(point) == side);
            let distances: Vec<f64> =
                others.map(|(_, point)| squared_distance(&points[from], point)).collect();
            distances.iter().sum::<f64>() / distances.len() as f64
        };
        let of = |from: usize| {
            let side = is_larger(&points[from]);
            let (within, between) = (mean_distance(from, side), mean_distance(from, !side));
            (between - within) / between.max(within)
        };
        let expected = (0..points.len()).map(of).sum::<f64>() / points.len() as f64;
        assert!((silhouette(&points, &larger, &smaller) - expected).abs() < 1e-12);
    }

    #[test]
    fn two_equal_halves_are_not_suspicious_and_a_small_group_apart_is() {
        let clusters = |copies: [usize; 2]| {
            let rows = squares([(-5.0, copies[0]), (5.0, copies[1])]);
            let rows: Vec<Vec<f32>> =
                rows.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect();
            Clusters::fit(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("two clusters")
        };
        assert_eq!(clusters([2, 2]).score(&[5.0, 0.0]), 0.0);
        // A tenth of the class: at its centre the score is the weight, half way it is 0, at the others' centre minus the weight.
        let tenth = clusters([9, 1]);
        let scores = [[5.0, 0.0], [0.0, 0.0], [-5.0, 0.0]].map(|row| tenth.score(&row));
        assert!((0.7..0.8).contains(&tenth.weight), "{}", tenth.weight);
        for (found, expected) in scores.into_iter().zip([tenth.weight, 0.0, -tenth.weight]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}
