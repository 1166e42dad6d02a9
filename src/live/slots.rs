//! Stream slots: limits the number of open event streams per holder.

use crate::core::metrics::EVENT_STREAMS;
use dashmap::DashMap;
use std::sync::Arc;

/// Number of taken slots per holder; holders without slots are removed.
pub(super) type StreamSlots = DashMap<String, usize>;

/// A taken slot, which is freed when this is dropped.
#[derive(Debug)]
pub struct StreamSlot {
    slots: Arc<StreamSlots>,
    holder: String,
}

impl StreamSlot {
    pub(super) fn take(slots: &Arc<StreamSlots>, holder: String, max: usize) -> Option<Self> {
        // Counted under the entry's lock, so that concurrent calls take no more than `max`.
        let mut count = slots.entry(holder.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(count);
        metrics::gauge!(EVENT_STREAMS).increment(1);
        Some(Self { slots: slots.clone(), holder })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        metrics::gauge!(EVENT_STREAMS).decrement(1);
        self.slots.remove_if_mut(&self.holder, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_slot_is_free_and_holders_without_slots_are_removed() {
        let slots = Arc::default();
        let take = |holder: &str| StreamSlot::take(&slots, holder.to_owned(), 2);
        let (first, second) = (take("ada"), take("ada"));
        assert!(first.is_some() && second.is_some() && take("ada").is_none());
        assert!(take("ben").is_some(), "others have their own");
        drop(first);
        let third = take("ada");
        assert!(third.is_some() && take("ada").is_none());
        drop((second, third));
        assert!(slots.is_empty());
    }
}
