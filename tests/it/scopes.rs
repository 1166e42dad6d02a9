//! The credential that each operation requires, and what the scopes of a key include.

use crate::operations::operations;
use crate::support::operations::{check_credentials, check_sessions};
use crate::support::{Backend, TestApp};

#[apply(on_both!)]
async fn every_operation_requires_the_credential_of_its_row(backend: Backend) {
    check_credentials(&backend, operations()).await;
}

#[apply(on_both!)]
async fn every_operation_accepts_sessions_according_to_its_row(backend: Backend) {
    check_sessions(&backend, operations()).await;
}

#[apply(on_both!)]
async fn scopes_of_a_key_add_up_and_admin_includes_all(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (both, _) = app.key(&admin, "write,read").await;
    app.get("/api/v1/conversations").key(&both).send().await.expect(200);
    let conversation = format!("/api/v1/conversations/{}", app.conversation(&both, &[]).await);
    let refused = app.get("/api/v1/api-keys").key(&both).send().await;
    refused.refused(403, "Admin scope required to read API keys");

    let (only_admin, _) = app.key(&admin, "admin").await;
    app.get(&conversation).key(&only_admin).send().await.expect(200);
    app.delete(&conversation).key(&only_admin).send().await.expect(204);
}
