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
