//! Areas of a file.

/// Areas of the file, sorted and without overlap.
#[derive(Default, Debug)]
pub(super) struct Areas(Vec<(usize, usize)>);

impl Areas {
    /// Adds areas.
    pub(super) fn extend(&mut self, areas: impl IntoIterator<Item = (usize, usize)>) {
        self.0.extend(areas);
        self.0.sort_unstable();
        self.0.dedup_by(|next, previous| {
            let overlaps = next.0 <= previous.1;
            if overlaps {
                previous.1 = previous.1.max(next.1);
            }
            overlaps
        });
    }

    /// Returns the start of the first area.
    pub(super) fn start(&self) -> Option<usize> {
        self.0.first().map(|area| area.0)
    }

    /// Returns the areas between these, within `start..end`, in ascending order.
    pub(super) fn gaps(&self, start: usize, end: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut position = start;
        self.0.iter().copied().chain([(end, end)]).filter_map(move |area| {
            let gap = (position, area.0.min(end));
            position = position.max(area.1);
            (gap.0 < gap.1).then_some(gap)
        })
    }

    /// Returns the start of the area that contains `offset`.
    pub(super) fn start_around(&self, offset: usize) -> Option<usize> {
        let index = self.0.partition_point(|area| area.0 <= offset);
        let (start, end) = *self.0.get(index.checked_sub(1)?)?;
        (offset < end).then_some(start)
    }

    /// Returns the end of the last area that ends at or before `offset`.
    pub(super) fn end_before(&self, offset: usize) -> usize {
        let index = self.0.partition_point(|area| area.1 <= offset);
        index.checked_sub(1).and_then(|index| self.0.get(index)).map_or(0, |area| area.1)
    }
}
