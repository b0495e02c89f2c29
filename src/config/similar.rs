//! Suggestions for misspelt names.

/// Returns the most similar known name, if the difference is small enough to be a typing error.
pub(super) fn nearest<T: AsRef<str>>(name: &str, known: impl Iterator<Item = T>) -> Option<T> {
    let limit = (name.len() / 3).max(1);
    known
        .map(|known| (strsim::osa_distance(name, known.as_ref()), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
