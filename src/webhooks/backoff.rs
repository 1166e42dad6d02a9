//! The retry schedule of webhook deliveries.

use chrono::{DateTime, TimeDelta, Utc};

/// Seconds to wait after the first failure, the second, and so on; later waits are [`MAX_WAIT`].
const WAITS: [i64; 8] = [5, 30, 2 * 60, 10 * 60, 30 * 60, 3600, 2 * 3600, 4 * 3600];
/// The longest wait.
pub(super) const MAX_WAIT: TimeDelta = TimeDelta::hours(8);
/// How long delivery of a webhook event is attempted.
const LIFETIME: TimeDelta = TimeDelta::days(3);

/// Returns the time of the next attempt after failure number `failures` of an event created at
/// `created_at`; `None` when that was the last attempt. The last attempt is exactly at the end of
/// [`LIFETIME`].
///
/// `retry_after` is the minimum wait that the receiver requests, capped at [`MAX_WAIT`]. `jitter`,
/// from 0 to 1, shortens a wait by up to a fifth, so that events that failed together are not
/// retried together.
pub fn next_attempt(
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
    failures: i64,
    retry_after: Option<TimeDelta>,
    jitter: f64,
) -> Option<DateTime<Utc>> {
    let end = created_at + LIFETIME;
    if now >= end {
        return None;
    }
    let seconds_to_wait = usize::try_from(failures - 1).ok().and_then(|index| WAITS.get(index));
    let wait = seconds_to_wait.map_or(MAX_WAIT, |seconds| TimeDelta::seconds(*seconds));
    #[expect(clippy::cast_possible_truncation, reason = "from 0 to 200")]
    let wait = wait * (1000 - (jitter * 200.0) as i32) / 1000;
    Some((now + wait.max(retry_after.unwrap_or_default().min(MAX_WAIT))).min(end))
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
    fn jitter_makes_a_wait_up_to_a_fifth_shorter() {
        let start = DateTime::UNIX_EPOCH;
        let wait =
            |jitter| (next_attempt(start, start, 4, None, jitter).unwrap() - start).num_seconds();
        assert_eq!([0.0, 0.5, 1.0].map(wait), [600, 540, 480]);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_but_not_for_less() {
        let start = DateTime::UNIX_EPOCH;
        let wait = |retry_after| {
            let retry_after = Some(TimeDelta::seconds(retry_after));
            (next_attempt(start, start, 2, retry_after, 0.0).unwrap() - start).num_seconds()
        };
        assert_eq!([0, 29, 31, 999_999].map(wait), [30, 30, 31, 28800]);
    }
}
