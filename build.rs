//! Rebuilds the crate when a migration changes. `sqlx::migrate!` embeds the migration files, but
//! cargo does not track them.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
