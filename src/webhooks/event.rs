//! The types of webhook events.

/// The type of a webhook event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An API key was created.
    KeyCreated,
    /// An API key was replaced by a new one.
    KeyRotated,
    /// An API key was deactivated.
    KeyDeactivated,
    /// An API key was deleted.
    KeyDeleted,
    /// An API key expires soon.
    KeyExpiring,
    /// An API key was deactivated because it expired.
    KeyExpired,
    /// A client repeatedly fails to authenticate.
    AuthenticationFailing,
}

impl Event {
    /// The name that is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCreated => "api_key.created",
            Self::KeyRotated => "api_key.rotated",
            Self::KeyDeactivated => "api_key.deactivated",
            Self::KeyDeleted => "api_key.deleted",
            Self::KeyExpiring => "api_key.expiring",
            Self::KeyExpired => "api_key.expired",
            Self::AuthenticationFailing => "authentication.failing",
        }
    }
}
