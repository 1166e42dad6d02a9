//! What is checked in tables: the statements, which belong to the feature that has the tables.

/// The checks of the tables of one feature.
#[derive(Clone, Copy, Debug)]
pub struct TableChecks {
    /// Tables with an `id` that the database assigns. No id may be assigned twice.
    pub id_tables: &'static [&'static str],
    /// Rules between values.
    pub rules: &'static [TableRule],
    /// Names that are also stored case-folded.
    pub name_keys: &'static [NameKeys],
    /// Columns with times.
    pub times: &'static [TimeColumns],
    /// Full-text indexes of SQLite.
    pub search_indexes: &'static [SearchIndex],
}

impl TableChecks {
    /// No checks.
    pub const NONE: Self =
        Self { id_tables: &[], rules: &[], name_keys: &[], times: &[], search_indexes: &[] };
}

/// A rule that no constraint of the schema can enforce: values stored twice must agree.
#[derive(Clone, Copy, Debug)]
pub struct TableRule {
    /// The name of the check, unique in the report.
    pub name: &'static str,
    /// The kind of row that the rule applies to, as named in the report.
    pub row_kind: &'static str,
    /// Selects the ids of at most `$1` rows that break the rule, on both databases.
    pub sql: &'static str,
}

/// Names that are stored twice: as given and case-folded, for searches.
#[derive(Clone, Copy, Debug)]
pub struct NameKeys {
    /// The kind of row that has the names, as named in the report.
    pub row_kind: &'static str,
    /// Selects `(id, name, key, other name, other key)` of at most `$2` rows with an id above `$1`,
    /// by id.
    pub sql: &'static str,
}

/// The columns of a table that have times.
#[derive(Clone, Copy, Debug)]
pub struct TimeColumns {
    /// The table, whose primary key is `id`.
    pub table: &'static str,
    /// The kind of row, as named in the report.
    pub row_kind: &'static str,
    /// The names of the columns.
    pub columns: &'static [&'static str],
}

/// A full-text index (FTS5) of SQLite. FTS5 compares an index with its texts in a statement that
/// writes, which would block every writer of the main database, so a copy is compared.
#[derive(Clone, Copy, Debug)]
pub struct SearchIndex {
    /// The name of the check, unique in the report.
    pub name: &'static str,
    /// Copies the index from `main` into the temporary database of the connection, `temp`.
    pub copy: &'static str,
    /// Compares the copy with the texts.
    pub compare: &'static str,
}
