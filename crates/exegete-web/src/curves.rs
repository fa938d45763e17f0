//! Curves of several logs over common steps, in so few points that a page can draw them.

use std::collections::BTreeSet;
use std::ops::Range;

use exegete_store::StepRow;

use crate::wire::TrainingCurves;

/// Most points of a curve.
const POINTS: usize = 240;

/// Stretches of steps, each of which makes a point.
pub(crate) struct Stretches {
    /// First and last step of each.
    ends: Vec<(u64, u64)>,
    /// Logged steps in each but the last, which may have fewer.
    pub(crate) each: usize,
}

impl Stretches {
    /// Over all steps that any of the logs has.
    pub(crate) fn over<'a>(logs: impl Iterator<Item = &'a [StepRow]>) -> Self {
        let steps: BTreeSet<u64> = logs.flatten().map(|row| row.step).collect();
        let steps: Vec<u64> = steps.into_iter().collect();
        let each = steps.len().div_ceil(POINTS).max(1);
        Self { ends: steps.chunks(each).map(|part| (part[0], part[part.len() - 1])).collect(), each }
    }

    /// The middle of each stretch.
    pub(crate) fn middles(&self) -> Vec<f64> {
        self.ends.iter().map(|(first, last)| (*first as f64 + *last as f64) / 2.0).collect()
    }

    /// A log's means over the stretches; no number where it has no step. Its rows are in the order of their steps.
    pub(crate) fn means(&self, rows: &[StepRow]) -> TrainingCurves {
        let (from, to) = (
            |step: u64| rows.partition_point(|row| row.step < step),
            |step: u64| rows.partition_point(|row| row.step <= step),
        );
        let of: Vec<Range<usize>> = self.ends.iter().map(|(first, last)| from(*first)..to(*last)).collect();
        let curve = |pick: fn(&StepRow) -> f64| -> Vec<f64> {
            // An empty sum over 0 is no number, as it should be.
            let mean = |part: &[StepRow]| part.iter().map(pick).sum::<f64>() / part.len() as f64;
            of.iter().map(|of| rows.get(of.clone()).map_or(f64::NAN, mean)).collect()
        };
        TrainingCurves {
            loss: curve(|r| r.loss.into()),
            fvu: curve(|r| r.fvu.into()),
            l0: curve(|r| r.l0.into()),
            // Where there is no penalty, there is no weight to speak of.
            sparsity: curve(|r| if r.penalty == 0.0 { f64::NAN } else { r.sparsity.into() }),
            dead: curve(|r| r.dead as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(steps: Range<u64>) -> Vec<StepRow> {
        let row = |i: u64| StepRow {
            step: 10 * i,
            loss: i as f32,
            fvu: 0.5,
            l0: 8.0,
            penalty: 0.0,
            sparsity: 0.0,
            aux: 0.0,
            pre_act: 0.0,
            dead: i,
        };
        steps.map(row).collect()
    }

    #[test]
    fn few_steps_are_points_and_many_are_means() {
        let (short, long) = (rows(0..3), rows(0..1000));
        let stretches = Stretches::over([&short[..]].into_iter());
        assert_eq!((stretches.middles(), stretches.means(&short).loss), (vec![0.0, 10.0, 20.0], vec![0.0, 1.0, 2.0]));
        let stretches = Stretches::over([&short[..], &long[..]].into_iter());
        let (middles, curves) = (stretches.middles(), stretches.means(&long));
        assert_eq!((stretches.each, middles.len(), middles[1]), (5, 200, 70.0));
        assert_eq!((curves.loss[1], curves.dead[199]), (7.0, 997.0));
        let of_short = stretches.means(&short);
        assert!(of_short.loss[0] == 1.0 && of_short.loss[1..].iter().all(|y| y.is_nan()));
    }

    #[test]
    fn logs_of_nothing_have_no_points() {
        let stretches = Stretches::over(std::iter::empty());
        assert!(stretches.middles().is_empty() && stretches.means(&[]).loss.is_empty());
    }
}
