//! When a notice that did not arrive is sent again.

use chrono::{DateTime, TimeDelta, Utc};

/// Seconds to wait after the first failure, the second, and so on; after later ones, [`LONGEST`].
const STEPS: [i64; 8] = [5, 30, 2 * 60, 10 * 60, 30 * 60, 3600, 2 * 3600, 4 * 3600];
/// The longest wait.
const LONGEST: TimeDelta = TimeDelta::hours(8);
/// How long a notice is tried for.
const LIFETIME: TimeDelta = TimeDelta::days(3);

/// When to send a notice of `created_at` again that has now failed for the `failures`th time;
/// `None` when that was the last attempt. The one before it waits for the very end of its time.
///
/// `asked` is how long the receiver itself wants to be left alone. `dice`, from 0 to 1, makes a wait
/// up to a fifth shorter, so that notices which failed together do not come back together.
pub fn next_attempt(
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
    failures: i64,
    asked: Option<TimeDelta>,
    dice: f64,
) -> Option<DateTime<Utc>> {
    let end = created_at + LIFETIME;
    if now >= end {
        return None;
    }
    let step = usize::try_from(failures - 1).ok().and_then(|index| STEPS.get(index));
    let wait = step.map_or(LONGEST, |seconds| TimeDelta::seconds(*seconds));
    #[expect(clippy::cast_possible_truncation, reason = "from 0 to 200")]
    let wait = wait * (1000 - (dice * 200.0) as i32) / 1000;
    Some((now + wait.max(asked.unwrap_or_default().min(LONGEST))).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_eight_hours_and_end_after_three_days() {
        let start = DateTime::UNIX_EPOCH;
        let (mut now, mut waits) = (start, vec![]);
        for failures in 1.. {
            let Some(next) = next_attempt(start, now, failures, None, 0.0) else { break };
            waits.push((next - now).num_seconds());
            now = next;
        }
        let hours = [3600, 7200, 14400].into_iter().chain([28800; 8]);
        let expected: Vec<i64> = [5, 30, 120, 600, 1800].into_iter().chain(hours).collect();
        assert_eq!(waits[..waits.len() - 1], expected);
        assert_eq!(now, start + LIFETIME, "the last attempt is at the end");
    }

    #[test]
    fn chance_makes_a_wait_up_to_a_fifth_shorter() {
        let start = DateTime::UNIX_EPOCH;
        let wait =
            |dice| (next_attempt(start, start, 4, None, dice).unwrap() - start).num_seconds();
        assert_eq!([0.0, 0.5, 1.0].map(wait), [600, 540, 480]);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_but_not_for_less() {
        let start = DateTime::UNIX_EPOCH;
        let wait = |asked| {
            let asked = Some(TimeDelta::seconds(asked));
            (next_attempt(start, start, 2, asked, 0.0).unwrap() - start).num_seconds()
        };
        assert_eq!([0, 29, 31, 999_999].map(wait), [30, 30, 31, 28800]);
    }
}
