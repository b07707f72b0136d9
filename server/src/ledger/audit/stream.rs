//! Rows that are read in the order of a key, and taken key by key beside others in the same order.

use rusqlite::{Row, Rows};

/// Rows in the order of their keys, one ahead.
pub struct Stream<'s, T> {
    rows: Rows<'s>,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    /// What the rows ascend by; may repeat.
    key: fn(&T) -> i64,
    next: Option<T>,
}

impl<'s, T> Stream<'s, T> {
    /// Reads the first row.
    pub fn new(
        rows: Rows<'s>,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
        key: fn(&T) -> i64,
    ) -> rusqlite::Result<Self> {
        let mut stream = Self { rows, read, key, next: None };
        stream.next = stream.read()?;
        Ok(stream)
    }

    fn read(&mut self) -> rusqlite::Result<Option<T>> {
        self.rows.next()?.map(self.read).transpose()
    }

    /// The key of the next row.
    pub fn key(&self) -> Option<i64> {
        self.next.as_ref().map(self.key)
    }

    /// All rows of this key, which is not above that of the next one.
    pub fn take(&mut self, key: i64) -> rusqlite::Result<Vec<T>> {
        let mut taken = Vec::new();
        while self.key() == Some(key) {
            let next = self.read()?;
            taken.extend(std::mem::replace(&mut self.next, next));
        }
        Ok(taken)
    }
}
