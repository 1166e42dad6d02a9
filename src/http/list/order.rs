//! The sort orders of lists, and their values of the parameter `order`.

/// A sort direction. Lists are sorted by keys that grow over time, so ascending means oldest
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// The sort orders of a list: the values of its `order` parameter.
pub trait Order: Copy + PartialEq + 'static {
    /// The allowed values of `order`, with their meaning.
    const WORDS: &'static [(&'static str, Self)];
    /// The order when the request has no `order`.
    const DEFAULT: Self;

    /// The sort direction.
    fn direction(self) -> Direction;
}

/// Either direction; the default is oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldestFirst(pub Direction);

impl Order for OldestFirst {
    const WORDS: &'static [(&'static str, Self)] =
        &[("asc", Self(Direction::Ascending)), ("desc", Self(Direction::Descending))];
    const DEFAULT: Self = Self(Direction::Ascending);

    fn direction(self) -> Direction {
        self.0
    }
}

/// Either direction; the default is newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestFirst(pub Direction);

impl Order for NewestFirst {
    const WORDS: &'static [(&'static str, Self)] =
        &[("asc", Self(Direction::Ascending)), ("desc", Self(Direction::Descending))];
    const DEFAULT: Self = Self(Direction::Descending);

    fn direction(self) -> Direction {
        self.0
    }
}
