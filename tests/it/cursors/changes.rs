//! Pages of lists that change while a client reads them.

use super::{USERS, cursor, delete_user, insert_users, page, read_pages, with_users};
use crate::support::Backend;
use std::collections::BTreeSet;

#[apply(on_both!)]
async fn pages_stay_correct_while_entries_are_added_and_removed(backend: Backend) {
    let (app, admin) = with_users(&backend, 10).await;
    let (first, next, _) = page(&app, &admin, &format!("{USERS}?limit=4")).await;
    assert_eq!(first, [1, 2, 3, 4]);
    // With `skip`, 6 and 7 would be left out.
    delete_user(&app, &admin, 1).await;
    delete_user(&app, &admin, 3).await;
    let (second, next, prev) = page(&app, &admin, &next.unwrap()).await;
    assert_eq!(second, [5, 6, 7, 8]);
    delete_user(&app, &admin, 9).await;
    insert_users(&app, 11..=12).await;
    let (third, next, back) = page(&app, &admin, &next.unwrap()).await;
    assert_eq!((third, next), (vec![10, 11, 12], None));
    assert_eq!(page(&app, &admin, &prev.unwrap()).await.0, [2, 4]);
    assert_eq!(page(&app, &admin, &back.unwrap()).await.0, [5, 6, 7, 8]);

    // With `skip` and newest first, 9 would be listed twice.
    let (first, next, _) = page(&app, &admin, &format!("{USERS}?limit=3&order=desc")).await;
    assert_eq!(first, [12, 11, 10]);
    insert_users(&app, 13..=14).await;
    let (second, _, prev) = page(&app, &admin, &next.unwrap()).await;
    assert_eq!(second, [8, 7, 6]);
    let (newer, _, prev) = page(&app, &admin, &prev.unwrap()).await;
    assert_eq!(newer, [12, 11, 10]);
    assert_eq!(page(&app, &admin, &prev.unwrap()).await.0, [14, 13]);
}

#[apply(on_both!)]
async fn reading_a_list_by_pages_misses_no_entry_during_writes(backend: Backend) {
    let (app, admin) = with_users(&backend, 300).await;
    // Every third user is deleted while the list is read, and others are added.
    let changes = async {
        for n in 1..=100 {
            delete_user(&app, &admin, 3 * n).await;
            insert_users(&app, [300 + n]).await;
        }
    };
    let reading = async {
        let mut lists = vec![];
        for order in ["asc", "desc", "asc", "desc"] {
            let start = format!("{USERS}?limit=7&order={order}");
            lists.push((order, read_pages(&app, &admin, &start, "next").await.0.concat()));
        }
        lists
    };
    let ((), lists) = tokio::join!(changes, reading);
    for (order, mut read) in lists {
        if order == "desc" {
            read.reverse();
        }
        assert!(read.is_sorted_by(|a, b| a < b), "{order}: doubled or out of order: {read:?}");
        let read: BTreeSet<i64> = read.into_iter().collect();
        let missed: Vec<i64> = (1..=300).filter(|n| n % 3 != 0 && !read.contains(n)).collect();
        assert!(missed.is_empty(), "{order}: missed {missed:?}");
    }
}

#[apply(on_both!)]
async fn a_cursor_outlives_its_entry(backend: Backend) {
    let (app, admin) = with_users(&backend, 6).await;
    let three = cursor(&app, &admin, USERS, 3).await;
    let (after, before) = (format!("{USERS}?after={three}"), format!("{USERS}?before={three}"));
    delete_user(&app, &admin, 3).await;
    assert_eq!(page(&app, &admin, &after).await.0, [4, 5, 6]);
    assert_eq!(page(&app, &admin, &before).await.0, [1, 2]);
    for id in [1, 2, 4, 5, 6] {
        delete_user(&app, &admin, id).await;
    }
    for target in [&after, &before] {
        assert_eq!(page(&app, &admin, target).await, (vec![], None, None));
    }
    insert_users(&app, [7]).await;
    let (ids, next, prev) = page(&app, &admin, &after).await;
    assert_eq!((ids, next), (vec![7], None));
    // A previous page is linked, but it is empty.
    assert_eq!(page(&app, &admin, &prev.unwrap()).await, (vec![], None, None));
}

#[apply(on_both!)]
async fn a_page_of_a_cursor_grows_as_the_list_does(backend: Backend) {
    let (app, admin) = with_users(&backend, 3).await;
    let (_, last) = read_pages(&app, &admin, &format!("{USERS}?limit=2"), "next").await;
    assert_eq!(page(&app, &admin, &last).await.0, [3]);
    insert_users(&app, [4]).await;
    let (ids, next, _) = page(&app, &admin, &last).await;
    assert_eq!((ids, next), (vec![3, 4], None));
    insert_users(&app, [5]).await;
    let (ids, next, _) = page(&app, &admin, &last).await;
    assert_eq!(ids, [3, 4]);
    assert_eq!(page(&app, &admin, &next.unwrap()).await.0, [5]);
}
