//! SQL for the sizes of conversations and messages.

/// SQL for the size of message `m` in a response, in bytes: content, metadata, and 320 for the
/// rest.
macro_rules! size {
    () => {
        "octet_length(m.content) + COALESCE(octet_length(m.metadata), 0) + 320"
    };
}
pub(crate) use size;

/// SQL for the approximate size of conversation `c` without its messages, in bytes: title,
/// metadata, 256 for each participant, and 512 for the rest.
macro_rules! weight {
    () => {
        "COALESCE(octet_length(c.title), 0) + COALESCE(octet_length(c.metadata), 0) + 512 \
         + 256 * (SELECT COUNT(*) FROM participants n WHERE n.conversation_id = c.id)"
    };
}
pub(super) use weight;
