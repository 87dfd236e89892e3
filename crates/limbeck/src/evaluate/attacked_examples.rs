//! A few attacked test images for people to look at: as they were, attacked, and what was changed.
//!
//! They are drawn by a seed before it is known what an attack does to them, so that they show what is usual and not what is
//! impressive. Images that are answered rightly as they are come first, since an attack on others says little.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::seq::SliceRandom;

use super::results::{AttackedExample, GivenAnswer, Rate};
use super::worst_case::Attempt;
use crate::attack::ThreatModel;
use crate::dataset::{Dataset, encode_png};
use crate::distill::Answer;
use crate::error::Result;
use crate::rng::Seed;

/// Level of a picture of differences where nothing was changed.
const UNCHANGED: u8 = 128;

/// How many attacked images are kept, and by what seed they are drawn.
#[derive(Clone, Copy, Debug)]
pub struct ExampleDraw {
    /// The most rows.
    pub count: usize,
    /// Seed of the draw.
    pub seed: Seed,
}

/// Drawn images of a set, and what each attack made of them.
pub(super) struct KeptImages<'a> {
    set: &'a Dataset,
    drawn: Vec<usize>,
    /// Answers to the drawn images as they are.
    clean: Vec<Answer>,
    attacks: Vec<KeptAttack>,
}

/// The drawn images under one attack.
struct KeptAttack {
    label: String,
    threat: ThreatModel,
    /// Images of the whole set that are answered wrongly.
    wrong: Rate,
    /// RGB8, `[3, height, width]` each.
    pixels: Vec<Vec<u8>>,
    answers: Vec<Answer>,
}

impl<'a> KeptImages<'a> {
    /// Draws from the images of `set`; `clean` holds an answer to each of them as it is.
    pub(super) fn draw(set: &'a Dataset, clean: &[Answer], draw: ExampleDraw) -> Self {
        let drawn = drawn(set, clean, draw);
        let clean = drawn.iter().map(|&image| clean[image]).collect();
        Self { set, drawn, clean, attacks: Vec::new() }
    }

    /// Keeps the drawn images as an attack left them; `stored` holds all images of the set under it, in 8 bits. Attacks that were crafted on another model, or
    /// have no answers, are left out.
    ///
    /// # Errors
    /// Whatever hinders `stored` from being read.
    pub(super) fn keep(&mut self, attempt: &Attempt, stored: &Dataset) -> Result<()> {
        let Some(answers) = &attempt.outcomes.answers else { return Ok(()) };
        if !attempt.origin.is_white_box() {
            return Ok(());
        }
        let labelled = answers.iter().zip(self.set.samples());
        self.attacks.push(KeptAttack {
            label: attempt.label(),
            threat: attempt.attack.threat(),
            wrong: Rate::of(labelled.map(|(answer, sample)| !answer.null && answer.class != sample.label)),
            pixels: self.drawn.iter().map(|&image| stored.pixels(image)).collect::<Result<_>>()?,
            answers: self.drawn.iter().map(|&image| answers[image]).collect(),
        });
        Ok(())
    }

    /// One row an image: by turns under the strongest attack of each threat model.
    ///
    /// # Errors
    /// Whatever hinders the set from being read.
    pub(super) fn rows(&self) -> Result<Vec<AttackedExample>> {
        let strongest = self.strongest();
        let by_turns = strongest.iter().cycle();
        (0..self.drawn.len()).zip(by_turns).map(|(row, attack)| self.row(row, attack)).collect()
    }

    fn row(&self, row: usize, attack: &KeptAttack) -> Result<AttackedExample> {
        let (image, pixels) = (self.drawn[row], &attack.pixels[row]);
        let (sample, clean) = (&self.set.samples()[image], self.set.pixels(image)?);
        let (difference, gain) = amplified_difference(pixels, &clean);
        let png =
            |pixels: &[u8]| -> Result<String> { Ok(STANDARD.encode(encode_png(pixels, self.set.size())?)) };
        Ok(AttackedExample {
            path: sample.path.clone(),
            label: sample.label,
            attack: attack.label.clone(),
            wrong: attack.wrong,
            clean: given(self.clean[row]),
            attacked: given(attack.answers[row]),
            largest_change: largest_change(pixels, &clean),
            clean_png: png(&clean)?,
            attacked_png: png(pixels)?,
            difference_png: png(&difference)?,
            difference_gain: gain,
        })
    }

    /// Of each threat model the attack that leads to most wrong answers, the first of equals.
    fn strongest(&self) -> Vec<&KeptAttack> {
        let mut strongest: Vec<&KeptAttack> = Vec::new();
        for attack in &self.attacks {
            match strongest.iter_mut().find(|other| other.threat == attack.threat) {
                None => strongest.push(attack),
                Some(other) if other.wrong.successes < attack.wrong.successes => *other = attack,
                Some(_) => {}
            }
        }
        strongest
    }
}

/// Images that are answered rightly as they are, then others; of either one image of each class, then a second.
fn drawn(set: &Dataset, clean: &[Answer], ExampleDraw { count, seed }: ExampleDraw) -> Vec<usize> {
    let mut order: Vec<usize> = (0..set.len()).collect();
    order.shuffle(&mut seed.rng("examples of attacked images"));
    let mut before: HashMap<(bool, u32), usize> = HashMap::new();
    let mut ranked: Vec<_> = order
        .into_iter()
        .map(|image| {
            let (answer, label) = (&clean[image], set.samples()[image].label);
            let is_missed = answer.null || answer.class != label;
            let round = before.entry((is_missed, label)).or_default();
            *round += 1;
            ((is_missed, *round), image)
        })
        .collect();
    // The sort is stable: within a round the images stay as they were shuffled.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(count).map(|(_, image)| image).collect()
}

fn given(answer: Answer) -> GivenAnswer {
    GivenAnswer {
        class: answer.class,
        probability: Some(answer.probability).filter(|share| share.is_finite()),
        null: answer.null,
        perturbed: answer.perturbed,
    }
}

/// The largest |a − b| of a value, in levels.
fn largest_change(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

/// a − b around mid-grey, times the largest whole number that cuts no difference; 1 where the largest is more than half of the range, and is cut.
fn amplified_difference(a: &[u8], b: &[u8]) -> (Vec<u8>, u8) {
    let gain = (i8::MAX as u8 / largest_change(a, b).max(1)).max(1);
    let shown = |(&a, &b): (&u8, &u8)| {
        let difference = (i32::from(a) - i32::from(b)) * i32::from(gain);
        (i32::from(UNCHANGED) + difference).clamp(0, 255) as u8
    };
    (a.iter().zip(b).map(shown).collect(), gain)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::attack::{AttackConfig, AttackKind};
    use crate::evaluate::worst_case::{Origin, Outcomes};
    use crate::testing::blocks;

    fn draw(count: usize, seed: u64) -> ExampleDraw {
        ExampleDraw { count, seed: Seed::new(seed) }
    }

    fn answer(class: u32, null: bool) -> Answer {
        Answer { class, probability: 0.9, uncertainty: 0.0, null, perturbed: false }
    }

    fn all_right(set: &Dataset) -> Vec<Answer> {
        set.samples().iter().map(|sample| answer(sample.label, false)).collect()
    }

    fn labels(set: &Dataset, images: &[usize]) -> HashSet<u32> {
        set.labels(images).into_iter().collect()
    }

    #[test]
    fn no_class_is_drawn_again_before_every_other_was() {
        let set = blocks(40, 4, 1);
        let images = drawn(&set, &all_right(&set), draw(8, 3));
        assert_eq!(images.iter().collect::<HashSet<_>>().len(), 8, "an image is drawn once");
        assert_eq!(labels(&set, &images[..4]).len(), 4);
        assert_eq!(labels(&set, &images[4..]).len(), 4);
    }

    #[test]
    fn the_draw_is_the_seeds_and_does_not_depend_on_what_an_attack_does() {
        let set = blocks(40, 4, 1);
        let images = |seed| drawn(&set, &all_right(&set), draw(8, seed));
        assert_eq!(images(3), images(3));
        assert_ne!(images(3), images(4));
        assert!(drawn(&set, &all_right(&set), draw(0, 3)).is_empty());
        assert_eq!(drawn(&set, &all_right(&set), draw(100, 3)).len(), 40, "no more than there are");
        assert!(drawn(&set.subset(&[]), &[], draw(8, 3)).is_empty());
    }

    #[test]
    fn images_that_are_missed_as_they_are_come_last() {
        let set = blocks(12, 4, 1);
        let mut clean = all_right(&set);
        // Three images of each class: class 0 is answered with another, class 1 null, the others rightly.
        for (image, answer) in clean.iter_mut().enumerate() {
            match set.samples()[image].label {
                0 => answer.class = 1,
                1 => answer.null = true,
                _ => {}
            }
        }
        let images = drawn(&set, &clean, draw(8, 5));
        assert_eq!(labels(&set, &images[..6]), HashSet::from([2, 3]));
        assert_eq!(labels(&set, &images[6..]), HashSet::from([0, 1]));
    }

    /// An attempt on 8 images of 4 classes, `wrong` of which are answered with the next class.
    fn attempt(attack: AttackConfig, origin: Origin, set: &Dataset, wrong: usize) -> Attempt {
        let mut answers = all_right(set);
        answers.iter_mut().take(wrong).for_each(|answer| answer.class = (answer.class + 1) % 4);
        let right = set.samples().iter().zip(&answers).map(|(sample, answer)| answer.class == sample.label);
        Attempt {
            attack,
            origin,
            outcomes: Outcomes { right: right.collect(), answers: Some(answers.clone()) },
            reached: None,
        }
    }

    #[test]
    fn rows_show_by_turns_the_strongest_attack_on_the_model_itself_of_each_radius() -> Result<()> {
        let set = blocks(8, 4, 1);
        let (small, large) = (0.01, 0.05);
        let mut kept = KeptImages::draw(&set, &all_right(&set), draw(4, 1));
        for (kind, eps, origin, wrong) in [
            (AttackKind::Fgsm, small, Origin::Itself, 1),
            (AttackKind::Pgd, small, Origin::Itself, 3),
            (AttackKind::IFgsm, small, Origin::Itself, 3),
            (AttackKind::Fgsm, large, Origin::Itself, 2),
            (AttackKind::Fgsm, large, Origin::ItsClasses("its classes".to_owned()), 4),
            (AttackKind::Pgd, large, Origin::Other("another".to_owned()), 8),
        ] {
            kept.keep(&attempt(AttackConfig::linf(kind, eps), origin, &set, wrong), &set)?;
        }
        let rows = kept.rows()?;
        let shown: Vec<_> = rows.iter().map(|row| (row.attack.as_str(), row.wrong.successes)).collect();
        let turns = [("pgd eps 0.01", 3), ("fgsm eps 0.05, from its classes", 4)];
        assert_eq!(shown, [turns[0], turns[1], turns[0], turns[1]]);
        assert!(rows.iter().all(|row| row.wrong.trials == 8));
        Ok(())
    }

    #[test]
    fn without_an_attack_there_is_no_row() -> Result<()> {
        let set = blocks(8, 4, 1);
        assert!(KeptImages::draw(&set, &all_right(&set), draw(4, 1)).rows()?.is_empty());
        Ok(())
    }

    #[test]
    fn a_difference_is_drawn_around_mid_grey_and_none_within_half_of_the_range_is_cut() {
        // 127 / 2 = 63 whole times.
        assert_eq!(amplified_difference(&[10, 12, 7], &[10, 10, 8]), (vec![128, 254, 65], 63));
        assert_eq!(amplified_difference(&[5, 5], &[5, 5]), (vec![128, 128], 127));
        assert_eq!(amplified_difference(&[255, 0, 127], &[0, 255, 0]), (vec![255, 0, 255], 1));
    }
}
