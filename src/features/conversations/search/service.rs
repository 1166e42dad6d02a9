//! The rules of search.

use super::model::{FoundMessage, Search, SearchHit};
use super::repository::{self, Candidate, HitRow, Indexed, Scope};
use super::snippet::snippet;
use super::words::Words;
use crate::core::error::{Error, Result};
use crate::db::{Db, Snapshot};
use crate::features::conversations::model::Participant;
use crate::features::conversations::repository::exists;
use crate::http::Listed;
use crate::security::Reach;

/// Messages that are read before the index is asked: of a word that many have, enough are among
/// them, while the index would name them all.
const FIRST: Look = Look { messages: 1000, bytes: 2 * 1024 * 1024 };
/// Messages that are read where no index helps.
const ONLY: Look = Look { messages: 10_000, bytes: 16 * 1024 * 1024 };
/// Bytes of messages in memory at once, but for one message.
const BATCH_BYTES: i64 = 1024 * 1024;

/// How many of the newest messages are read.
#[derive(Clone, Copy)]
struct Look {
    messages: i64,
    bytes: i64,
}

/// What reading the newest messages came to.
struct Seen {
    ids: Vec<i64>,
    /// Whether there was nothing else to read.
    is_all: bool,
}

/// Messages that have all the words, the newest first: of conversation `id`, or of all within
/// `reach`.
pub async fn search(
    db: &Db,
    id: Option<i64>,
    reach: Reach,
    search: Search,
) -> Result<Listed<SearchHit>> {
    let mut snapshot = db.snapshot().await?;
    if let Some(id) = id
        && !exists(&mut snapshot, id, reach).await?
    {
        return Err(Error::NotFound("Conversation"));
    }
    let scope = Scope { conversation_id: id, reach };
    let ids = find(&mut snapshot, scope, &search).await?;
    let Listed { entries: ids, link } = search.part.page(ids);
    let mut hits = Vec::with_capacity(ids.len());
    for some in ids.chunks(repository::SHOWN) {
        let rows = repository::hits(&mut snapshot, some, reach).await?;
        hits.extend(rows.into_iter().map(|row| hit(row, reach, &search.q)));
    }
    Ok(Listed { entries: hits, link })
}

/// The ids of the page, and one more if there is one.
async fn find(snapshot: &mut Snapshot, scope: Scope, search: &Search) -> Result<Vec<i64>> {
    let rows = search.part.limit + 1;
    let wanted = usize::try_from(search.part.skip + rows).unwrap_or(usize::MAX);
    let page = |ids: Vec<i64>| {
        let skip = usize::try_from(search.part.skip).unwrap_or(usize::MAX);
        ids.into_iter().skip(skip).collect()
    };
    let seen = look(snapshot, scope, &search.q, FIRST, wanted).await?;
    if seen.is_all || seen.ids.len() == wanted {
        return Ok(page(seen.ids));
    }
    match repository::indexed(snapshot, &search.q).await? {
        Indexed::NoMessage => Ok(vec![]),
        Indexed::Nothing => Ok(page(look(snapshot, scope, &search.q, ONLY, wanted).await?.ids)),
        Indexed::Condition(condition, others) => {
            let skip = search.part.skip;
            Ok(repository::found(snapshot, scope, condition, &others, skip, rows).await?)
        }
    }
}

/// Reads the newest messages in `scope`, as far as `look` goes, until `wanted` are found.
async fn look(
    snapshot: &mut Snapshot,
    scope: Scope,
    words: &Words,
    look: Look,
    wanted: usize,
) -> Result<Seen> {
    let candidates = repository::newest(&mut *snapshot, scope, look.messages).await?;
    let is_all = candidates.len() < usize::try_from(look.messages).unwrap_or(usize::MAX);
    let (mut ids, mut rest, mut bytes) = (vec![], candidates.as_slice(), 0);
    while !rest.is_empty() && ids.len() < wanted {
        if bytes >= look.bytes {
            return Ok(Seen { ids, is_all: false });
        }
        let (batch, after) = rest.split_at(batch(rest));
        rest = after;
        bytes += batch.iter().map(|candidate| candidate.bytes).sum::<i64>();
        let batch: Vec<i64> = batch.iter().map(|candidate| candidate.id).collect();
        for (id, content) in repository::contents(&mut *snapshot, &batch).await? {
            if words.are_in(&content) {
                ids.push(id);
            }
        }
    }
    ids.truncate(wanted);
    Ok(Seen { ids, is_all })
}

/// How many of `candidates` are read at once: one at least.
fn batch(candidates: &[Candidate]) -> usize {
    let mut bytes = 0;
    let fitting = candidates.iter().take(repository::CONTENTS).take_while(|candidate| {
        bytes += candidate.bytes;
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

fn hit(row: HitRow, reach: Reach, words: &Words) -> SearchHit {
    let user = match (row.user_id, row.username, row.email) {
        (Some(id), Some(name), Some(email)) => Some(Participant::seen_by(reach, id, name, email)),
        _ => None,
    };
    SearchHit {
        conversation_id: row.conversation_id,
        title: row.title,
        message: FoundMessage {
            id: row.id,
            seq: row.seq,
            role: row.role,
            user_id: row.user_id,
            user,
            created_at: row.created_at,
            edited_at: row.edited_at,
        },
        snippet: snippet(&row.content, words.as_slice()),
    }
}
