//! Losses of one image's logits with their gradients, in closed form and double precision.
//!
//! A loss is written for what an attack wants to rise. In double precision a cross-entropy still has a slope where a softmax of
//! 32 bits has long become 1: the vanished gradients that made defensive distillation look robust (Carlini & Wagner 2017, section IV).

/// Cross-entropy −log softmax(z)_class; the gradient is softmax(z) less 1 at the class.
pub fn cross_entropy(logits: &[f32], class: usize, gradient: &mut [f64]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut others = 0.0;
    for (index, (slope, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
        *slope = (f64::from(logit) - f64::from(largest)).exp();
        if index != class {
            others += *slope;
        }
    }
    let own = gradient[class];
    let sum = own + others;
    for slope in gradient.iter_mut() {
        *slope /= sum;
    }
    // Not softmax − 1, which loses everything below 1e-16.
    gradient[class] = -others / sum;
    if own == 1.0 { others.ln_1p() } else { sum.ln() + f64::from(largest) - f64::from(logits[class]) }
}

/// z_class − max over the others of z, and which other that is: negative where the class is not the answer.
pub(super) fn margin(logits: &[f32], class: usize) -> (f64, usize) {
    let rivals = logits.iter().enumerate().filter(|(index, _)| *index != class);
    let (rival, best) =
        rivals.fold(
            (class, f32::NEG_INFINITY),
            |best, (index, &logit)| {
                if logit > best.1 { (index, logit) } else { best }
            },
        );
    (f64::from(logits[class]) - f64::from(best), rival)
}

/// Difference of logits ratio −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3), z_π being the logits from the largest (Croce & Hein 2020, equation 6).
///
/// Needs three classes; unmoved by a shift or a scale of the logits.
pub(super) fn dlr(logits: &[f32], class: usize, gradient: &mut [f64]) -> f64 {
    let (lead, rival) = margin(logits, class);
    let order = largest_first::<3>(logits);
    ratio(lead, [class, rival], logits, &[(order[0], 1.0), (order[2], -1.0)], gradient)
}

/// −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2) towards class t (Croce & Hein 2020, equation 7); needs four classes.
pub(super) fn targeted_dlr(logits: &[f32], class: usize, target: usize, gradient: &mut [f64]) -> f64 {
    let lead = f64::from(logits[class]) - f64::from(logits[target]);
    let order = largest_first::<4>(logits);
    let scale = [(order[0], 1.0), (order[2], -0.5), (order[3], -0.5)];
    ratio(lead, [class, target], logits, &scale, gradient)
}

/// −lead / scale, where the lead is z_a − z_b and the scale a weighted sum of logits.
fn ratio(lead: f64, [a, b]: [usize; 2], logits: &[f32], scale: &[(usize, f64)], gradient: &mut [f64]) -> f64 {
    let size = scale.iter().map(|&(index, weight)| weight * f64::from(logits[index])).sum::<f64>().max(1e-12);
    gradient[a] -= 1.0 / size;
    gradient[b] += 1.0 / size;
    for &(index, weight) in scale {
        gradient[index] += weight * lead / (size * size);
    }
    -lead / size
}

/// Indices of the `N` largest logits, the largest first, the first of equals first.
fn largest_first<const N: usize>(logits: &[f32]) -> [usize; N] {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    std::array::from_fn(|rank| order[rank])
}

/// Scales a gradient to a largest entry of 1: for steps that only use its direction, so that none is lost to 32 bits.
pub(super) fn unit(gradient: &mut [f64]) {
    let largest = gradient.iter().fold(0.0f64, |largest, slope| largest.max(slope.abs()));
    if largest > 0.0 {
        gradient.iter_mut().for_each(|slope| *slope /= largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cross_entropy_s_gradient_agrees_with_differences(
            logits in proptest::collection::vec(-8f32..8.0, 2..9), class in 0usize..2,
        ) {
            let mut gradient = vec![0.0; logits.len()];
            let loss = cross_entropy(&logits, class, &mut gradient);
            let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            prop_assert!((loss - (sum.ln() - f64::from(logits[class]))).abs() < 1e-9);
            for index in 0..logits.len() {
                let at = |step: f32| {
                    let mut moved = logits.clone();
                    moved[index] += step;
                    let taken = f64::from(moved[index]);
                    (cross_entropy(&moved, class, &mut vec![0.0; logits.len()]), taken)
                };
                let ((above, high), (below, low)) = (at(1e-3), at(-1e-3));
                prop_assert!(((above - below) / (high - low) - gradient[index]).abs() < 1e-5);
            }
        }
    }

    /// Logits whose order no difference of 1e-3 changes.
    fn apart() -> impl Strategy<Value = Vec<f32>> {
        (4usize..9).prop_flat_map(|classes| {
            let order = Just((0..classes).collect::<Vec<usize>>()).prop_shuffle();
            (order, proptest::collection::vec(-0.4f32..0.4, classes)).prop_map(|(order, shifts)| {
                order.into_iter().zip(shifts).map(|(rank, shift)| rank as f32 + shift).collect()
            })
        })
    }

    proptest! {
        #[test]
        fn ratios_gradients_agree_with_differences_and_shift_and_scale_leave_them(logits in apart(), class in 0usize..4) {
            type Ratio = fn(&[f32], usize, &mut [f64]) -> f64;
            let ratios: [Ratio; 2] = [dlr, |logits, class, gradient| targeted_dlr(logits, class, (class + 1) % 4, gradient)];
            for ratio in ratios {
                let mut gradient = vec![0.0; logits.len()];
                let loss = ratio(&logits, class, &mut gradient);
                let value = |logits: &[f32]| ratio(logits, class, &mut vec![0.0; logits.len()]);
                for index in 0..logits.len() {
                    let at = |step: f32| {
                        let mut moved = logits.clone();
                        moved[index] += step;
                        (value(&moved), f64::from(moved[index]))
                    };
                    let ((above, high), (below, low)) = (at(1e-3), at(-1e-3));
                    let numeric = (above - below) / (high - low);
                    prop_assert!((numeric - gradient[index]).abs() < 1e-3, "{numeric} and {}", gradient[index]);
                }
                let moved: Vec<f32> = logits.iter().map(|logit| 3.0 * logit + 5.0).collect();
                prop_assert!((value(&moved) - loss).abs() < 1e-4);
            }
        }
    }

    /// By hand, for logits 5, 3, 2, 1 and the label 0: −(5 − 3) / (5 − 2), and towards class 2 −(5 − 2) / (5 − (2 + 1) / 2).
    #[test]
    fn ratios_are_the_published_ones() {
        let logits = [5.0, 3.0, 2.0, 1.0];
        assert!((dlr(&logits, 0, &mut [0.0; 4]) + 2.0 / 3.0).abs() < 1e-12);
        assert!((targeted_dlr(&logits, 0, 2, &mut [0.0; 4]) + 3.0 / 3.5).abs() < 1e-12);
        assert!(dlr(&logits, 1, &mut [0.0; 4]) > 0.0, "positive where the model is fooled");
    }

    #[test]
    fn a_saturated_softmax_keeps_its_slope() {
        let mut gradient = [0.0; 2];
        let loss = cross_entropy(&[100.0, 0.0], 0, &mut gradient);
        let expected = (-100f64).exp();
        assert!((loss / expected - 1.0).abs() < 1e-9, "{loss}");
        assert!((gradient[0] / -expected - 1.0).abs() < 1e-9, "{gradient:?}");
        unit(&mut gradient);
        assert_eq!(gradient, [-1.0, 1.0]);
    }

    #[test]
    fn a_margin_is_the_lead_over_the_strongest_rival() {
        assert_eq!(margin(&[1.0, 4.0, 2.5], 1), (1.5, 2));
        assert_eq!(margin(&[1.0, 4.0, 2.5], 0), (-3.0, 1));
    }
}
