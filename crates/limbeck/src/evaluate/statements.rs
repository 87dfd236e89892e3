//! Plain sentences derived from the figures, failures as plainly as successes.

use super::results::{Evaluation, ModelRow, Outcome, Rate, Statement};
use super::worst_case::threat_label;
use crate::attack::ThreatModel;
use crate::text::percent;

/// What a reader should take away, in order of weight.
pub fn statements(results: &Evaluation) -> Vec<Statement> {
    [
        harm(results),
        found(results),
        known(results),
        honest(results),
        value_of_the_filter(results),
        kept(results),
        distilled(results),
        robust(results),
        masked(results),
        silent(results),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn say(good: bool, text: String) -> Option<Statement> {
    Some(Statement { outcome: if good { Outcome::Pass } else { Outcome::Fail }, text })
}

fn model<'a>(results: &'a Evaluation, name: &str) -> Option<&'a ModelRow> {
    results.models.iter().find(|row| row.model == name)
}

fn share(rate: Rate) -> f64 {
    rate.share().unwrap_or(0.0)
}

/// A poison that does no harm proves nothing about a defence: the harm of a backdoor is that it works, of any other what it costs in accuracy.
fn harm(results: &Evaluation) -> Option<Statement> {
    results.poison.as_ref()?;
    let (clean, poisoned) = (model(results, "clean-trained")?, model(results, "undefended")?);
    if let (Some(without), Some(with)) = (clean.backdoor, poisoned.backdoor) {
        let works = with.wilson()?[0] > without.wilson()?[1];
        return say(
            works,
            format!(
                "The backdoor {}: without a defence {} of the triggered test images are answered with its class, of a network that never saw the poison {}{}.",
                if works { "works" } else { "does not measurably work" },
                percent(share(with)),
                percent(share(without)),
                if works { "" } else { ": purification cannot show a gain there" }
            ),
        );
    }
    let (before, after) = (percent(share(clean.clean)), percent(share(poisoned.clean)));
    let harmed = is_better(results, "clean", "none");
    say(
        harmed,
        match harmed {
            true => format!(
                "The poison does harm: trained on it without a defence, clean accuracy falls from {before} to {after}."
            ),
            false => format!(
                "The poison does no measurable harm to clean accuracy ({before} without it, {after} with it): purification cannot show a gain there."
            ),
        },
    )
}

/// Whether the classifier behind the first filter is right more often than that behind the second, beyond chance (McNemar, p < 0.05).
fn is_better(results: &Evaluation, first: &str, second: &str) -> bool {
    results.filters.iter().filter(|row| row.p_value < 0.05).any(|row| {
        let (better, worse) = match row.only_first > row.only_second {
            true => (&row.first, &row.second),
            false => (&row.second, &row.first),
        };
        better == first && worse == second
    })
}

fn found(results: &Evaluation) -> Option<Statement> {
    let row = results.detection.iter().find(|row| row.decides)?;
    say(
        row.auroc >= 0.9 && share(row.recall) >= 0.5,
        format!(
            "{} of {} poisoned images are flagged ({}), with {} of {} clean images flagged beside them ({}); AUROC of {} is {:.3}.",
            row.recall.successes,
            row.recall.trials,
            percent(share(row.recall)),
            row.false_positives.successes,
            row.false_positives.trials,
            percent(share(row.false_positives)),
            row.score,
            row.auroc
        ),
    )
}

/// What is left of the detector against one who holds its weights; an attack that fails proves nothing for it.
fn known(results: &Evaluation) -> Option<Statement> {
    const MOST: f64 = 0.1;
    let held_out = results.held_out.as_ref()?;
    let attacks = held_out.attacks.iter().filter(|row| row.knows_detector);
    let worst = attacks.max_by(|a, b| share(a.evaded).total_cmp(&share(b.evaded)))?;
    // What the network misreads by itself is no success of an attack.
    let misread = share(held_out.fooled_by_clean);
    let got_past = share(worst.evaded) > MOST + misread;
    let text = format!(
        "Of images attacked by {}, {} fool the attacker's own network, which misreads {} by itself, and are not flagged{}.",
        worst.attack,
        percent(share(worst.evaded)),
        percent(misread),
        if got_past { "" } else { "; a better attack may get past the detector more often" }
    );
    Some(Statement { outcome: if got_past { Outcome::Fail } else { Outcome::Unknown }, text })
}

/// A detector that flags honest damage sees noise, not intent.
fn honest(results: &Evaluation) -> Option<Statement> {
    const MOST: f64 = 0.03;
    let honest = &results.held_out.as_ref()?.honest;
    let worst = honest.iter().max_by(|a, b| share(a.flagged).total_cmp(&share(b.flagged)))?;
    let above = honest.iter().filter(|row| share(row.flagged) > MOST).count();
    say(
        above == 0,
        format!(
            "{above} of {} kinds of honest damage are flagged in more than {} of the images; the worst is {}, with {}.",
            honest.len(),
            percent(MOST),
            worst.damage,
            percent(share(worst.flagged))
        ),
    )
}

fn value_of_the_filter(results: &Evaluation) -> Option<Statement> {
    let control = |name: &str| results.controls.iter().find(|row| row.filter == name);
    let (ours, random) = (control("limbeck")?, control("random")?);
    let [clean, clean_of_random] = [ours, random].map(|row| percent(share(row.clean)));
    if let (Some(left), Some(left_by_random)) = (ours.backdoor, random.backdoor) {
        let is_rarer = |a: Rate, b: Rate| Some(a.wilson()?[1] < b.wilson()?[0]);
        let better = is_rarer(left, left_by_random)?;
        let tail = match (better, is_rarer(left_by_random, left)?) {
            (true, _) => "",
            (_, true) => ", which is worse",
            _ => ", no clear difference",
        };
        return say(
            better,
            format!(
                "Behind limbeck's filter the backdoor works on {} of the triggered test images, behind a random filter of equal size on {}{tail}; on clean ones the classifiers reach {clean} and {clean_of_random}.",
                percent(share(left)),
                percent(share(left_by_random))
            ),
        );
    }
    let better = is_better(results, "limbeck", "random");
    let tail = match (better, is_better(results, "random", "limbeck")) {
        (true, _) => "",
        (_, true) => ": it is worse",
        _ => ": no clear difference",
    };
    say(
        better,
        format!(
            "A classifier behind limbeck's filter reaches {clean} on clean test images, behind a random filter of equal size {clean_of_random}{tail}."
        ),
    )
}

/// Rare classes go first.
fn kept(results: &Evaluation) -> Option<Statement> {
    let worst = results
        .by_class
        .iter()
        .filter_map(|row| Some((row.false_positives?.share()?, row.class)))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    let name = results.dataset.classes.get(worst.1 as usize)?;
    say(
        worst.0 <= 0.05,
        format!(
            "The class that suffers most is \"{name}\": {} of its clean images are flagged.",
            percent(worst.0)
        ),
    )
}

fn distilled(results: &Evaluation) -> Option<Statement> {
    let (plain, student) = (model(results, "undefended")?, model(results, "student")?);
    const MOST_ANSWERED: f64 = 0.05;
    let lost = share(plain.clean) - share(student.clean);
    let (mut good, mut tail) = (lost <= 0.01, String::new());
    if let (Some(before), Some(left)) = (plain.backdoor, student.backdoor) {
        good &= share(left) <= MOST_ANSWERED;
        let [before, left] = [before, left].map(|rate| percent(share(rate)));
        tail = format!(
            " The backdoor works on {left} of the triggered ones with it, on {before} without a defence."
        );
    }
    say(
        good,
        format!(
            "The distilled student is right on {} of the clean test images, the undefended classifier on {}.{tail}",
            percent(share(student.clean)),
            percent(share(plain.clean))
        ),
    )
}

/// The widest ball of which the deployed model keeps least.
fn robust(results: &Evaluation) -> Option<Statement> {
    let cases = results.robustness.worst_cases.iter().filter(|case| case.model == "student");
    let worst = cases.min_by(|a, b| share(a.accuracy).total_cmp(&share(b.accuracy)))?;
    let accuracy = share(worst.accuracy);
    let threat = threat_label(ThreatModel { norm: worst.norm, eps: worst.eps });
    say(
        accuracy >= 0.5,
        format!(
            "In the worst case over {} attacks within {threat}, the student is right on {} of the images.{}",
            worst.attacks.len(),
            percent(accuracy),
            if accuracy >= 0.5 { "" } else { " It does not withstand such an attacker." }
        ),
    )
}

/// Whether the figures under attack can be believed.
fn masked(results: &Evaluation) -> Option<Statement> {
    let count = |outcome| results.checks.iter().filter(|check| check.outcome == outcome).count();
    let (passed, failed) = (count(Outcome::Pass), count(Outcome::Fail));
    if passed + failed == 0 {
        return None;
    }
    say(
        !results.robustness.masking_suspected,
        match failed {
            0 => format!(
                "All {passed} self-checks of the attacks pass: none found a sign of masked gradients."
            ),
            _ => format!(
                "Gradient masking suspected: {failed} of {} self-checks fail, so accuracy under attack may be lower than measured.",
                passed + failed
            ),
        },
    )
}

fn silent(results: &Evaluation) -> Option<Statement> {
    let rows = &results.abstention.outcomes;
    let clean = rows.iter().find(|row| row.inputs == "clean")?;
    let total = |row: &super::results::AbstentionRow| (row.right + row.wrong + row.null).max(1) as f64;
    let null = clean.null as f64 / total(clean);
    let worst = rows.iter().filter(|row| row.inputs != "clean");
    let share = |row: &super::results::AbstentionRow| row.wrong as f64 / total(row);
    let worst = worst.max_by(|a, b| share(a).total_cmp(&share(b)));
    let tail = worst.map_or(String::new(), |row| {
        format!(
            " Under {} it still gives a wrong answer to {} of the images and null to {}.",
            row.inputs,
            percent(share(row)),
            percent(row.null as f64 / total(row))
        )
    });
    let good = worst.is_none_or(|row| share(row) <= 0.05) && null <= 0.05;
    say(good, format!("The student answers null to {} of the clean test images.{tail}", percent(null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attack_that_knows_the_detector_and_fails_proves_nothing_for_it() {
        let mut results = crate::report::sample::evaluation();
        let mut told = |successes| {
            let attacks = &mut results.held_out.as_mut().expect("measured").attacks;
            let knowing = attacks.iter_mut().filter(|row| row.knows_detector);
            knowing.for_each(|row| row.evaded = Rate { successes, trials: 64 });
            known(&results).expect("there was such an attack")
        };
        let (failed, won) = (told(5), told(40));
        assert_eq!((failed.outcome, won.outcome), (Outcome::Unknown, Outcome::Fail));
        assert!(failed.text.contains("7.8 %") && failed.text.contains("a better attack"), "{}", failed.text);
        assert!(won.text.contains("62.5 % fool") && won.text.ends_with("are not flagged."), "{}", won.text);
    }

    fn told(results: &Evaluation, of: fn(&Evaluation) -> Option<Statement>) -> (Outcome, String) {
        of(results).map(|statement| (statement.outcome, statement.text)).expect("it is said")
    }

    #[test]
    fn filters_are_compared_on_the_same_images() {
        let mut results = crate::report::sample::evaluation();
        assert_eq!(told(&results, value_of_the_filter).0, Outcome::Pass);
        assert_eq!(told(&results, harm).0, Outcome::Pass);
        for row in &mut results.filters {
            (row.only_first, row.only_second) = (row.only_second, row.only_first);
        }
        let (outcome, text) = told(&results, value_of_the_filter);
        assert!(outcome == Outcome::Fail && text.ends_with("it is worse."), "{text}");
        assert_eq!(told(&results, harm).0, Outcome::Fail, "trained on poison it is right more often");
        results.filters.iter_mut().for_each(|row| row.p_value = 0.05);
        let (outcome, text) = told(&results, value_of_the_filter);
        assert_eq!(outcome, Outcome::Fail);
        assert!(text.contains("no clear difference"), "{text}");
        let (outcome, text) = told(&results, harm);
        assert_eq!(outcome, Outcome::Fail);
        assert!(text.contains("no measurable harm"), "{text}");
    }

    #[test]
    fn of_a_backdoor_is_said_how_often_it_works_not_what_it_costs() {
        let mut results = crate::report::sample::evaluation();
        let rate = |successes| Some(Rate { successes, trials: 100 });
        for row in &mut results.models {
            row.backdoor = rate(if row.model == "undefended" { 95 } else { 2 });
        }
        for row in &mut results.controls {
            row.backdoor = rate(if row.filter == "limbeck" { 1 } else { 94 });
        }
        results.filters.clear();
        let (outcome, text) = told(&results, harm);
        assert!(outcome == Outcome::Pass && text.contains("95.0 %") && text.contains("2.0 %"), "{text}");
        let (outcome, text) = told(&results, value_of_the_filter);
        assert!(outcome == Outcome::Pass && text.contains("1.0 %") && text.contains("94.0 %"), "{text}");
        for row in &mut results.controls {
            row.backdoor = rate(if row.filter == "limbeck" { 94 } else { 1 });
        }
        let (outcome, text) = told(&results, value_of_the_filter);
        assert!(outcome == Outcome::Fail && text.contains("on 1.0 %, which is worse;"), "{text}");
        let (kept, text) = told(&results, distilled);
        assert!(
            text.ends_with("on 2.0 % of the triggered ones with it, on 95.0 % without a defence."),
            "{text}"
        );
        results.models.iter_mut().for_each(|row| row.backdoor = rate(95));
        assert_eq!((kept, told(&results, distilled).0), (Outcome::Pass, Outcome::Fail));
    }
}
