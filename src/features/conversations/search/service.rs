//! The rules of search.

use super::model::{FoundMessage, Search, SearchHit};
use super::older::Older;
use super::repository::{self, Candidate, HitRow, Indexed, Scope};
use super::snippet::snippet;
use super::words::Words;
use crate::core::error::{Error, Result};
use crate::core::offload::offload_large;
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
        let bytes = rows.iter().map(|row| row.content.len()).sum();
        let words = search.q.clone();
        let shown = move || rows.into_iter().map(|row| hit(row, reach, &words)).collect::<Vec<_>>();
        hits.extend(offload_large(bytes, shown).await);
    }
    Ok(Listed { entries: hits, link })
}

/// The ids of the page, and one more if there is one.
async fn find(snapshot: &mut Snapshot, scope: Scope, search: &Search) -> Result<Vec<i64>> {
    let wanted = usize::try_from(search.part.skip + search.part.limit + 1).unwrap_or(usize::MAX);
    let page = |ids: Vec<i64>| {
        let skip = usize::try_from(search.part.skip).unwrap_or(usize::MAX);
        ids.into_iter().skip(skip).collect()
    };
    let seen = look(snapshot, scope, &search.q, FIRST, wanted).await?;
    if seen.is_all || seen.ids.len() == wanted {
        return Ok(page(seen.ids));
    }
    let indexed = repository::indexed(snapshot, &search.q).await?;
    if let Indexed::Nothing = indexed {
        return Ok(page(look(snapshot, scope, &search.q, ONLY, wanted).await?.ids));
    }
    let lacking = repository::unindexed(snapshot, scope).await?;
    let mut ids = read(snapshot, &lacking, &search.q, i64::MAX, wanted).await?.ids;
    if let Indexed::Condition(condition) = indexed
        && ids.len() < wanted
    {
        // Those the index has are older.
        let older = Older { scope, words: &search.q, condition, wanted: wanted - ids.len() };
        ids.extend(older.find(snapshot).await?);
    }
    Ok(page(ids))
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
    let mut seen = read(snapshot, &candidates, words, look.bytes, wanted).await?;
    seen.is_all &= candidates.len() < usize::try_from(look.messages).unwrap_or(usize::MAX);
    Ok(seen)
}

/// Reads `candidates`, until `bytes` are read or `wanted` are found.
async fn read(
    snapshot: &mut Snapshot,
    candidates: &[Candidate],
    words: &Words,
    bytes: i64,
    wanted: usize,
) -> Result<Seen> {
    let (mut ids, mut rest, mut read) = (vec![], candidates, 0);
    while !rest.is_empty() && ids.len() < wanted {
        if read >= bytes {
            return Ok(Seen { ids, is_all: false });
        }
        let some = &rest[..rest.len().min(repository::CONTENTS)];
        let (batch, after) = rest.split_at(fitting(some, BATCH_BYTES));
        rest = after;
        read += batch.iter().map(|candidate| candidate.bytes).sum::<i64>();
        let batch: Vec<i64> = batch.iter().map(|candidate| candidate.id).collect();
        let contents = repository::contents(&mut *snapshot, &batch).await?;
        ids.extend(words.all_in(contents).await);
    }
    ids.truncate(wanted);
    Ok(Seen { ids, is_all: rest.is_empty() })
}

/// How many of `candidates`, from the first, have `bytes` together: one at least, if there is one.
fn fitting(candidates: &[Candidate], bytes: i64) -> usize {
    let mut total: i64 = 0;
    let fitting = candidates.iter().take_while(|candidate| {
        total = total.saturating_add(candidate.bytes);
        total <= bytes
    });
    fitting.count().max(1).min(candidates.len())
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
