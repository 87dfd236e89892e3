//! The false-discovery rate: of the images that are flagged, the share that is expected to be clean (Benjamini & Hochberg 1995).

/// The largest p-value that is still a discovery at this rate: of m values in ascending order the last with p(k) <= rate · k / m. `None` where there is none.
///
/// For clean images whose p-values are uniform or larger, and independent or positively dependent, at most the share `rate` of the values up to the
/// returned one is expected to be of clean images (their theorem 1; Benjamini & Yekutieli 2001 for conformal p-values' kind of dependence).
pub(super) fn largest_discovery(mut p_values: Vec<f64>, rate: f64) -> Option<f64> {
    p_values.sort_unstable_by(f64::total_cmp);
    let count = p_values.len() as f64;
    let is_discovery = |(rank, p): (usize, &f64)| *p <= rate * (rank + 1) as f64 / count;
    let last = p_values.iter().enumerate().rposition(is_discovery)?;
    Some(p_values[last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_example() {
        // Benjamini & Hochberg 1995, section 4.1: fifteen p-values, four rejected at 0.05, where Bonferroni rejects three.
        let p_values = vec![
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
            0.6528, 0.7590, 1.0,
        ];
        assert_eq!(largest_discovery(p_values, 0.05), Some(0.0095));
    }

    #[test]
    fn the_more_of_a_class_is_suspicious_the_higher_the_last_discovery() {
        let with = |suspicious: usize| {
            let clean = (0..100).map(|rank| (f64::from(rank) + 1.0) / 101.0);
            clean.chain(std::iter::repeat_n(0.001, suspicious)).collect::<Vec<_>>()
        };
        assert_eq!(largest_discovery(with(0), 0.05), None);
        let [few, many] = [10, 400].map(|suspicious| largest_discovery(with(suspicious), 0.05));
        assert!(few < many && many <= Some(0.05), "{few:?} {many:?}");
    }
}
