//! Changes and lookups of the outbox in a file.

use tokio::sync::oneshot;

use crate::{
    changes::{SealedRow, StoreChange},
    error::NotDurable,
    listing::ListPosition,
    outbox::{OutboxLookup, OutboxPage, OutboxPart, outbox_key},
    queue::Durability,
    reader::ReadRequest,
    record::{RecordKey, RecordKind, RecordName},
    secret::SealError,
    store::FileStore,
};

impl FileStore {
    /// Creates an incident in the background: a mark that it was created, valid until `mark_expiry`, and an entry of the
    /// outbox. Both are written in one transaction, and retried as [`put_not_clean`](Self::put_not_clean). Changes that are
    /// requested later are not written before. Nothing changes if the mark exists, or if the outbox has
    /// [`MAX_OUTBOX`](crate::MAX_OUTBOX) entries, which is counted. `name`: of a record of kind [`RecordKind::Incident`].
    ///
    /// # Errors
    /// If the value cannot be sealed. The future fails as that of [`put_not_clean`](Self::put_not_clean).
    pub fn add_incident(
        &self,
        name: RecordName,
        mark_expiry: u64,
        expiry: u64,
        value: &[u8],
    ) -> Result<impl Future<Output = Result<(), NotDurable>> + use<>, SealError> {
        let mark = RecordKey { kind: RecordKind::Incident, name, version: None };
        let secret = self.secret();
        let mark = secret.seal(&mark, mark_expiry, &[])?;
        let entry = secret.seal(&outbox_key(name), expiry, value)?;
        let row = |expiry, sealed| SealedRow { name, expiry, sealed };
        let change =
            StoreChange::AddIncident { mark: row(mark_expiry, mark), entry: row(expiry, entry) };
        Ok(self.queue_durable(change, Durability::Retried))
    }

    /// Replaces the value of an entry, unless the entry has been removed. Otherwise as
    /// [`put_not_clean`](Self::put_not_clean).
    ///
    /// # Errors
    /// As [`put_not_clean`](Self::put_not_clean).
    pub fn update_outbox(
        &self,
        name: RecordName,
        expiry: u64,
        value: &[u8],
    ) -> Result<impl Future<Output = Result<(), NotDurable>> + use<>, SealError> {
        let sealed = self.secret().seal(&outbox_key(name), expiry, value)?;
        Ok(self.queue_durable(StoreChange::UpdateOutbox { name, sealed }, Durability::Retried))
    }

    /// Removes an entry; retried until it is removed. The future returns after that.
    ///
    /// # Errors
    /// As those of [`put_not_clean`](Self::put_not_clean).
    pub fn remove_from_outbox(
        &self,
        name: RecordName,
    ) -> impl Future<Output = Result<(), NotDurable>> + use<> {
        self.queue_durable(StoreChange::RemoveOutbox { name }, Durability::Retried)
    }

    /// Returns the next entries, the oldest first. `after`: [`OutboxPage::next`] of the page before, or `None` for the first
    /// page. Returns `None` if the file cannot be read, or 1024 lookups are queued.
    pub fn outbox(
        &self,
        after: Option<ListPosition>,
    ) -> impl Future<Output = Option<OutboxPage>> + use<> {
        self.read_outbox(OutboxPart::After(after))
    }

    /// Returns one entry, if it exists, in place of a page. Otherwise as [`outbox`](Self::outbox).
    pub fn outbox_entry(
        &self,
        name: RecordName,
    ) -> impl Future<Output = Option<OutboxPage>> + use<> {
        self.read_outbox(OutboxPart::Named(name))
    }

    fn read_outbox(&self, part: OutboxPart) -> impl Future<Output = Option<OutboxPage>> + use<> {
        let (reply, result) = oneshot::channel();
        self.request(ReadRequest::Outbox(OutboxLookup { part, reply }));
        async { result.await.ok().flatten() }
    }
}
