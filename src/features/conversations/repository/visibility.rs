//! The SQL condition for row-level visibility of conversations.

/// SQL condition: whether the conversation with this id is visible for a
/// [`Visibility`](crate::security::Visibility) whose `user_id()` is bound as `$n`, for example
/// `visible!("c.id", "$2")`. A retired conversation is visible to no caller: it has no
/// participants, and `retired_at` hides it from API keys.
macro_rules! visible {
    ($id:literal, $user:literal) => {
        concat!(
            "((CAST(",
            $user,
            " AS BIGINT) IS NULL AND ",
            $id,
            " NOT IN (SELECT gone.id FROM conversations gone WHERE gone.retired_at IS NOT NULL)) \
             OR EXISTS (SELECT 1 FROM participants r WHERE r.conversation_id = ",
            $id,
            " AND r.user_id = ",
            $user,
            "))"
        )
    };
}
pub(crate) use visible;
