//! Search operations.

use super::index_search::IndexSearch;
use super::model::{FoundMessage, SearchHit};
use super::repository::{self, Candidate, HitRow, Indexed, SearchScope};
use super::snippet::snippet;
use super::words::Words;
use crate::core::error::{Error, Result};
use crate::core::offload::offload_large;
use crate::db::{Db, Snapshot};
use crate::features::conversations::model::Participant;
use crate::features::conversations::repository::exists;
use crate::http::{ListPage, Part};
use crate::security::Visibility;

/// Limit of the scan before the index is used. For a frequent word the scan fills the page, while
/// the index would return every match.
const FIRST_SCAN: ScanLimit = ScanLimit { messages: 1000, bytes: 2 * 1024 * 1024 };
/// Limit of the scan if the index cannot be used.
const FULL_SCAN: ScanLimit = ScanLimit { messages: 10_000, bytes: 16 * 1024 * 1024 };
/// Maximum bytes of messages in memory, unless a single message is larger.
const BATCH_BYTES: i64 = 1024 * 1024;

/// The limit of a scan of the newest messages.
#[derive(Clone, Copy)]
struct ScanLimit {
    messages: i64,
    bytes: i64,
}

/// The result of a scan.
struct Scan {
    ids: Vec<i64>,
    /// Whether the scan read all messages.
    is_all: bool,
}

/// Searches conversation `id`, or all visible conversations, for messages with all words. Hits are
/// sorted newest first.
pub async fn search(
    db: &Db,
    id: Option<i64>,
    visibility: Visibility,
    words: &Words,
    part: Part,
) -> Result<ListPage<SearchHit>> {
    let mut snapshot = db.snapshot().await?;
    if let Some(id) = id
        && !exists(&mut snapshot, id, visibility).await?
    {
        return Err(Error::NotFound("Conversation"));
    }
    let scope = SearchScope { conversation_id: id, visibility };
    let ids = find(&mut snapshot, scope, words, &part).await?;
    let ListPage { entries: ids, link } = part.page(ids);
    let mut hits = Vec::with_capacity(ids.len());
    for some in ids.chunks(repository::MAX_HITS) {
        let rows = repository::hits(&mut snapshot, some, visibility).await?;
        let bytes = rows.iter().map(|row| row.content.len()).sum();
        let words = words.clone();
        let shown =
            move || rows.into_iter().map(|row| hit(row, visibility, &words)).collect::<Vec<_>>();
        hits.extend(offload_large(bytes, shown).await);
    }
    Ok(ListPage { entries: hits, link })
}

/// The ids of the hits on the page, and one more if there is a next page.
async fn find(
    snapshot: &mut Snapshot,
    scope: SearchScope,
    words: &Words,
    part: &Part,
) -> Result<Vec<i64>> {
    let wanted = usize::try_from(part.skip + part.limit + 1).unwrap_or(usize::MAX);
    let page = |ids: Vec<i64>| {
        let skip = usize::try_from(part.skip).unwrap_or(usize::MAX);
        ids.into_iter().skip(skip).collect()
    };
    let scan = scan_newest(snapshot, scope, words, FIRST_SCAN, wanted).await?;
    if scan.is_all || scan.ids.len() == wanted {
        return Ok(page(scan.ids));
    }
    let indexed = repository::indexed(snapshot, words).await?;
    if let Indexed::Unusable = indexed {
        return Ok(page(scan_newest(snapshot, scope, words, FULL_SCAN, wanted).await?.ids));
    }
    let unindexed = repository::unindexed(snapshot, scope).await?;
    let mut ids = read(snapshot, &unindexed, words, i64::MAX, wanted).await?.ids;
    if let Indexed::Condition(condition) = indexed
        && ids.len() < wanted
    {
        // Indexed messages are older than the ones the index lacks.
        let index_search = IndexSearch { scope, words, condition, wanted: wanted - ids.len() };
        ids.extend(index_search.find(snapshot).await?);
    }
    Ok(page(ids))
}

/// Scans the newest messages in `scope` until `limit` or the number of `wanted` matches is reached.
async fn scan_newest(
    snapshot: &mut Snapshot,
    scope: SearchScope,
    words: &Words,
    limit: ScanLimit,
    wanted: usize,
) -> Result<Scan> {
    let candidates = repository::newest(&mut *snapshot, scope, limit.messages).await?;
    let mut scan = read(snapshot, &candidates, words, limit.bytes, wanted).await?;
    scan.is_all &= candidates.len() < usize::try_from(limit.messages).unwrap_or(usize::MAX);
    Ok(scan)
}

/// Reads `candidates` until `bytes` are read or `wanted` matches are found.
async fn read(
    snapshot: &mut Snapshot,
    candidates: &[Candidate],
    words: &Words,
    bytes: i64,
    wanted: usize,
) -> Result<Scan> {
    let (mut ids, mut rest, mut read) = (vec![], candidates, 0);
    while !rest.is_empty() && ids.len() < wanted {
        if read >= bytes {
            return Ok(Scan { ids, is_all: false });
        }
        let some = &rest[..rest.len().min(repository::MAX_CONTENTS)];
        let (batch, after) = rest.split_at(fitting(some, BATCH_BYTES));
        rest = after;
        read += batch.iter().map(|candidate| candidate.bytes).sum::<i64>();
        let batch: Vec<i64> = batch.iter().map(|candidate| candidate.id).collect();
        let contents = repository::contents(&mut *snapshot, &batch).await?;
        ids.extend(words.all_in(contents).await);
    }
    ids.truncate(wanted);
    Ok(Scan { ids, is_all: rest.is_empty() })
}

/// Number of leading `candidates` whose total size is at most `bytes`; at least one, if there is
/// one.
fn fitting(candidates: &[Candidate], bytes: i64) -> usize {
    let mut total: i64 = 0;
    let fitting = candidates.iter().take_while(|candidate| {
        total = total.saturating_add(candidate.bytes);
        total <= bytes
    });
    fitting.count().max(1).min(candidates.len())
}

fn hit(row: HitRow, visibility: Visibility, words: &Words) -> SearchHit {
    let user = match (row.user_id, row.username, row.email) {
        (Some(id), Some(name), Some(email)) => {
            Some(Participant::visible_to(visibility, id, name, email))
        }
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
