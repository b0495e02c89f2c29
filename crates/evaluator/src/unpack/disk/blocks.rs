//! Virtual disks in blocks.

use std::io::{self, Read};

/// Maximum size of a disk that is read with the zeros after its last block, bytes.
const MAX_WHOLE: usize = 64 << 20;

/// Returns the size up to which a disk is read. `used` is the end of the last block with content.
pub(super) fn readable_size(size: usize, used: usize) -> usize {
    if size <= MAX_WHOLE { size } else { size.min(used) }
}

/// Where the content of a block is.
pub(super) enum DiskBlock<'a> {
    Zeros,
    Stored(&'a [u8]),
    /// A decoder of the content.
    Compressed(Box<dyn Read + 'a>),
    /// Outside of the file.
    Missing,
}

/// A disk that is stored as blocks.
pub(super) trait BlockDisk<'a> {
    /// Returns the size of a block, bytes, not 0.
    fn block_size(&self) -> usize;

    /// Returns the size of the disk, bytes.
    fn size(&self) -> usize;

    /// Returns the block with this number, its content possibly longer or shorter than a block.
    fn block(&self, number: usize) -> DiskBlock<'a>;
}

/// Reads the content of a disk.
pub(super) struct BlockReader<'a, D> {
    disk: D,
    /// Number of the block after the current one.
    next: usize,
    block: DiskBlock<'a>,
    /// Number of bytes of the current block, and of the disk, that were not read.
    in_block: usize,
    in_disk: usize,
}

impl<'a, D: BlockDisk<'a>> BlockReader<'a, D> {
    pub(super) fn new(disk: D) -> Self {
        let in_disk = disk.size();
        Self { disk, next: 0, block: DiskBlock::Zeros, in_block: 0, in_disk }
    }
}

impl<'a, D: BlockDisk<'a>> Read for BlockReader<'a, D> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if self.in_disk == 0 || output.is_empty() {
            return Ok(0);
        }
        if self.in_block == 0 {
            self.block = self.disk.block(self.next);
            self.in_block = self.disk.block_size();
            self.next = self.next.saturating_add(1);
        }
        let length = self.in_block.min(self.in_disk).min(output.len());
        let output = output.get_mut(..length).unwrap_or_default();
        let read = match &mut self.block {
            DiskBlock::Zeros => {
                output.fill(0);
                length
            }
            DiskBlock::Stored(content) => content.read(output)?,
            DiskBlock::Compressed(decoder) => decoder.read(output)?,
            DiskBlock::Missing => 0,
        };
        if read == 0 {
            let reason = "a block of the disk is truncated";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        self.in_block -= read;
        self.in_disk -= read;
        Ok(read)
    }
}
