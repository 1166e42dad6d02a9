//! The one condition that keeps people to the conversations they take part in.

/// Whether the conversation with this id is within a [`Reach`](crate::security::Reach), whose
/// `user_id()` is bound as `$n`: `within_reach!("c.id", "$2")`. One that is being removed is within
/// nobody's: its participants are gone, and to keys its mark says so.
macro_rules! within_reach {
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
pub(in crate::features::conversations) use within_reach;
