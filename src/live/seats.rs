//! How many watch at a time for each who may.

use crate::core::metrics::EVENT_STREAMS;
use dashmap::DashMap;
use std::sync::Arc;

/// Places taken, by their holders; who has none takes no room.
pub(super) type Seats = DashMap<String, usize>;

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    holder: String,
}

impl Seat {
    pub(super) fn take(seats: &Arc<Seats>, holder: String, most: usize) -> Option<Self> {
        // Counted under the entry's lock: of many at once, no more than `most` get one.
        let mut taken = seats.entry(holder.clone()).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        drop(taken);
        metrics::gauge!(EVENT_STREAMS).increment(1);
        Some(Self { seats: seats.clone(), holder })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::gauge!(EVENT_STREAMS).decrement(1);
        self.seats.remove_if_mut(&self.holder, |_, taken| {
            *taken -= 1;
            *taken == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_given_back_is_free_and_nobody_is_remembered() {
        let seats = Arc::default();
        let take = |holder: &str| Seat::take(&seats, holder.to_owned(), 2);
        let (first, second) = (take("ada"), take("ada"));
        assert!(first.is_some() && second.is_some() && take("ada").is_none());
        assert!(take("ben").is_some(), "others have their own");
        drop(first);
        let third = take("ada");
        assert!(third.is_some() && take("ada").is_none());
        drop((second, third));
        assert!(seats.is_empty());
    }
}
