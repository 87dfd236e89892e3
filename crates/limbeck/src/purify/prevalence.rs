//! How much of a set is poisoned, told from the set alone: what a network that never learnt from an image says of it, summed up over all images.

/// Share of the images that are of the second kind, by expectation maximisation (Saerens, Latinne & Decaestecker 2002, equation 4), from each image's log-odds
/// of the second kind against the first, of a classifier that was taught as many of each. 0 of no images.
///
/// With r = exp(log-odds) and the share s, an image is of the second kind with probability s r / (s r + 1 - s), and the mean of these is the next s. It is the
/// share of largest likelihood where the log-odds are right; a classifier that is too sure of images of the first kind makes it too large.
pub(super) fn share_of_second(log_odds: &[f64]) -> f64 {
    const ITERATIONS: usize = 1000;
    const CLOSE: f64 = 1e-9;
    let mut share: f64 = 0.5;
    for _ in 0..ITERATIONS {
        // ln of s / (1 - s): a share of 0 or 1 is a fixed point, and infinite here.
        let prior = (share / (1.0 - share)).ln();
        let sum: f64 = log_odds.iter().map(|odds| 1.0 / (1.0 + (-(odds + prior)).exp())).sum();
        let next = sum / log_odds.len().max(1) as f64;
        let settled = (next - share).abs() < CLOSE;
        share = next;
        if settled {
            break;
        }
    }
    share
}

/// Which labels are wrong by confident learning (Northcutt 2021, section 3.1): the likeliest of the classes that the image has at least as probably as the images
/// of that label have it on the average is another than its own. `probabilities` is `[images][classes]`, of a classifier that never learnt from the images.
pub(super) fn confidently_wrong(probabilities: &[Vec<f64>], labels: &[u32]) -> Vec<bool> {
    let classes = probabilities.first().map_or(0, Vec::len);
    let mut own = vec![(0.0, 0_u32); classes];
    for (of_image, &label) in probabilities.iter().zip(labels) {
        let (sum, count) = &mut own[label as usize];
        (*sum, *count) = (*sum + of_image[label as usize], *count + 1);
    }
    // No image of a class: none is confidently of it.
    let usual: Vec<f64> = own
        .iter()
        .map(|&(sum, count)| if count == 0 { f64::INFINITY } else { sum / f64::from(count) })
        .collect();
    let likeliest = |of_image: &Vec<f64>| {
        (0..classes)
            .filter(|&class| of_image[class] >= usual[class])
            .max_by(|&a, &b| of_image[a].total_cmp(&of_image[b]))
    };
    probabilities
        .iter()
        .zip(labels)
        .map(|(of_image, &label)| likeliest(of_image).is_some_and(|class| class != label as usize))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log-likelihood ratios of unit normals around 3 and 0: 3 x - 4.5, at the quantiles of as many images of each kind as are asked for.
    fn two_normals([first, second]: [usize; 2]) -> Vec<f64> {
        let quantiles = |count: usize, mean: f64| {
            (0..count).map(move |index| {
                let p = (index as f64 + 0.5) / count as f64;
                // Logistic quantiles, scaled to the normal's: close enough for a share.
                mean + (p / (1.0 - p)).ln() / 1.702
            })
        };
        let both = quantiles(first, 0.0).chain(quantiles(second, 3.0));
        both.map(|x| 3.0 * x - 4.5).collect()
    }

    #[test]
    fn the_share_is_found_whatever_it_is() {
        for second in [0, 50, 100, 500, 950, 1000] {
            let found = share_of_second(&two_normals([1000 - second, second]));
            assert!((found - second as f64 / 1000.0).abs() < 0.03, "{second}: {found}");
        }
    }

    #[test]
    fn log_odds_without_bounds_are_shares_too() {
        assert!((share_of_second(&[1e5, -1e5, -1e5, -1e5]) - 0.25).abs() < 1e-6);
        assert_eq!(share_of_second(&[1e5, 1e5]), 1.0);
        assert_eq!(share_of_second(&[]), 0.0);
    }

    #[test]
    fn a_label_is_wrong_where_another_is_as_sure_as_its_own_images() {
        let probabilities = vec![
            vec![0.9, 0.1, 0.0],
            vec![0.7, 0.3, 0.0],
            // Labelled 0, and less of it than its images are, but of class 1 more than the images of that.
            vec![0.4, 0.6, 0.0],
            // Labelled 1: of that class for sure, of none for sure, of class 0 for sure.
            vec![0.02, 0.98, 0.0],
            vec![0.58, 0.42, 0.0],
            vec![0.9, 0.1, 0.0],
        ];
        let labels = [0, 0, 0, 1, 1, 1];
        let wrong = confidently_wrong(&probabilities, &labels);
        // Usual: class 0 (0.9 + 0.7 + 0.4) / 3 = 0.667, class 1 (0.98 + 0.42 + 0.1) / 3 = 0.5; class 2 has no image.
        assert_eq!(wrong, [false, false, true, false, false, true]);
        assert!(confidently_wrong(&[], &[]).is_empty());
    }
}
