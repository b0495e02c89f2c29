//! Connections to the database, and its schema.

use std::{os::unix::ffi::OsStringExt as _, path::Path};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, ffi};

use crate::{error::DamageCause, limits::BUSY_TIMEOUT, store_path::StorePath};

/// Application ID in the header of the database: "MCS1".
pub(crate) const APPLICATION_ID: i32 = 0x4d43_5331;

/// Version of the schema. A file with another version is set aside.
pub(crate) const SCHEMA_VERSION: i32 = 2;

/// Objects of the schema by name, with their SQL.
///
/// A table with row IDs, in the order of insertion: against `WITHOUT ROWID`, 300 000 records are inserted in 5.3 s
/// instead of 8.7 s, and 1000 are evicted in 8 ms instead of 79 ms, with equal size and duration of lookups. `state`
/// has one row: the number of records, which a transaction updates, so that they are never counted. `outbox` is not
/// counted among the records, and none of its rows makes room for others.
const SCHEMA: [(&str, Option<&str>); 6] = [
    (
        "outbox",
        Some(
            "CREATE TABLE outbox(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, \
             expiry INTEGER NOT NULL, sealed BLOB NOT NULL)",
        ),
    ),
    (
        "record",
        Some(
            "CREATE TABLE record(kind INTEGER NOT NULL, name BLOB NOT NULL, version BLOB NOT NULL, \
             expiry INTEGER NOT NULL, sealed BLOB NOT NULL, UNIQUE(kind, name, version))",
        ),
    ),
    ("record_expiry", Some("CREATE INDEX record_expiry ON record(expiry)")),
    ("sqlite_autoindex_outbox_1", None),
    ("sqlite_autoindex_record_1", None),
    ("state", Some("CREATE TABLE state(entries INTEGER NOT NULL)")),
];

/// Reason why a database cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The file cannot be used; it is set aside.
    Damaged(DamageCause),
    /// The file may be good: the disk is full or failed, or memory is lacking.
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        let is_environment = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::DiskFull
                    | ErrorCode::CannotOpen
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::PermissionDenied
            )
        );
        // The statements are constant, so every other error is caused by the content of the file.
        if is_environment {
            Self::Failed(error)
        } else {
            Self::Damaged(DamageCause::Damaged(error.to_string()))
        }
    }
}

/// Returns whether an error of an open database means that the file is damaged.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Connection of the writer, and the number of records.
#[derive(Debug)]
pub(crate) struct OpenDatabase {
    pub(crate) connection: Connection,
    pub(crate) entries: u64,
}

/// Opens the existing file for writing. Creates the schema in an empty file.
pub(crate) fn open_writer(path: &StorePath) -> Result<OpenDatabase, OpenFailure> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let is_empty = check_file(&connection)? == FileContent::Empty;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let message = "the file system does not support a write-ahead log".to_owned();
        let error = ffi::Error::new(ffi::SQLITE_CANTOPEN);
        return Err(OpenFailure::Failed(rusqlite::Error::SqliteFailure(error, Some(message))));
    }
    // The log is cut to this size after its content has been written to the database.
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    if is_empty {
        create_schema(&mut connection)?;
    }
    let entries = read_entries(&connection)?;
    Ok(OpenDatabase { connection, entries })
}

/// Opens the file for reading, while the writer has it open.
pub(crate) fn open_reader(path: &StorePath) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens the file for reading in another process than the one that may have it open. `is_open`: whether there is a
/// write-ahead log. Without one, creates no file, and takes no lock.
pub(crate) fn open_inspector(path: &StorePath, is_open: bool) -> rusqlite::Result<Connection> {
    if is_open {
        return open_reader(path);
    }
    // Otherwise SQLite creates a write-ahead log even for reading. A URI, sqlite.org/uri.html.
    let mut uri = String::from("file:");
    for byte in path.database().into_os_string().into_vec() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => uri.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 0xf)]),
        }
    }
    uri.push_str("?immutable=1");
    connect_to(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

/// Returns the hexadecimal digit for a number below 16.
fn hex_digit(number: u8) -> char {
    char::from_digit(number.into(), 16).unwrap_or_default()
}

/// Whether a file has the schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileContent {
    /// Its schema has not been created yet.
    Empty,
    Store,
}

/// Checks that the file is a store of this version, or empty.
pub(crate) fn check_file(connection: &Connection) -> Result<FileContent, OpenFailure> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get(0));
    let (application, version): (i32, i32) = (pragma("application_id")?, pragma("user_version")?);
    let schema = read_schema(connection)?;
    if (application, version) == (0, 0) && schema.is_empty() {
        return Ok(FileContent::Empty);
    }
    check_identity(application, version, &schema).map_err(OpenFailure::Damaged)?;
    Ok(FileContent::Store)
}

/// Opens a connection that uses little memory and that executes nothing from the file's schema.
fn connect(path: &StorePath, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // The path is absolute, so SQLite does not read it as a URI.
    connect_to(path.database(), mode)
}

fn connect_to(path: impl AsRef<Path>, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection belongs to one thread.
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let configuration = [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ];
    for (option, value) in configuration {
        connection.set_db_config(option, value)?;
    }
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "cache_size", -2048)?; // KiB
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "secure_delete", false)?;
    Ok(connection)
}

/// Reads the first seven objects of the schema: one more than expected.
fn read_schema(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement =
        connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name LIMIT 7")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn check_identity(
    application: i32,
    version: i32,
    schema: &[(String, Option<String>)],
) -> Result<(), DamageCause> {
    if application != APPLICATION_ID {
        return Err(DamageCause::OtherApplication(application));
    }
    if version != SCHEMA_VERSION {
        return Err(DamageCause::OtherVersion(version));
    }
    let schema = schema.iter().map(|(name, sql)| (&**name, sql.as_deref()));
    if schema.eq(SCHEMA) { Ok(()) } else { Err(DamageCause::OtherSchema) }
}

fn create_schema(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for sql in SCHEMA.iter().filter_map(|(_, sql)| *sql) {
        transaction.execute(sql, [])?;
    }
    transaction.execute("INSERT INTO state VALUES(0)", [])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Reads the number of records.
pub(crate) fn read_entries(connection: &Connection) -> Result<u64, OpenFailure> {
    let entries: i64 = connection.query_one("SELECT entries FROM state", [], |row| row.get(0))?;
    let invalid = || DamageCause::Damaged(format!("{entries} records"));
    u64::try_from(entries).map_err(|_| OpenFailure::Damaged(invalid()))
}
