//! Lists of MAPI properties in TNEF, [MS-OXTNEF] 2.1.3.4.

use crate::unpack::fields::FieldReader;

/// Types of values, [MS-OXCDATA] 2.11.1.
const OBJECT: u16 = 0x0d;
pub(super) const STRING8: u16 = 0x1e;
pub(super) const UNICODE: u16 = 0x1f;
const SERVER_ID: u16 = 0xfb;
const RESTRICTION: u16 = 0xfd;
const RULE_ACTION: u16 = 0xfe;
const BINARY: u16 = 0x102;

/// Flag of types with several values.
const MULTIPLE: u16 = 0x1000;

/// Identifiers from this one on are followed by a name.
const FIRST_NAMED: u16 = 0x8000;

/// A value of variable length of a property.
#[derive(Clone, Copy)]
pub(super) struct MapiValue<'a> {
    pub(super) id: u16,
    pub(super) kind: u16,
    pub(super) value: &'a [u8],
}

impl MapiValue<'_> {
    /// Returns whether the value may be an object, which starts with the identifier of its interface.
    pub(super) fn is_object(&self) -> bool {
        /// End of the identifiers of the interfaces of OLE and MAPI.
        const INTERFACE: [u8; 8] = [0xc0, 0, 0, 0, 0, 0, 0, 0x46];
        self.kind == OBJECT || self.value.get(8..16) == Some(&INTERFACE)
    }
}

/// Calls `found` with each value of variable length.
///
/// # Errors
/// `Ok(None)` if the list is damaged: the values after the damage are not found. Otherwise the error of `found`.
pub(super) fn values<'a, E>(
    list: &'a [u8],
    mut found: impl FnMut(MapiValue<'a>) -> Result<(), E>,
) -> Result<Option<()>, E> {
    let mut fields = FieldReader::new(list);
    let Some(count) = fields.u32() else { return Ok(None) };
    for _ in 0..count {
        let Some((id, kind)) = property(&mut fields) else { return Ok(None) };
        let base = kind & !MULTIPLE;
        let is_variable = is_variable(base);
        // Single values of variable length have a count, too.
        let has_count = is_variable || kind & MULTIPLE != 0;
        let Some(values) = (if has_count { fields.u32() } else { Some(1) }) else {
            return Ok(None);
        };
        if !is_variable {
            let skipped = fixed_length(base).and_then(|length| {
                fields.bytes(length.checked_mul(usize::try_from(values).ok()?)?)
            });
            if skipped.is_none() {
                return Ok(None);
            }
            continue;
        }
        for _ in 0..values {
            let Some(length) = fields.length() else { return Ok(None) };
            let value = fields.up_to(length);
            found(MapiValue { id, kind: base, value })?;
            if value.len() < length {
                return Ok(None);
            }
            fields.up_to(length.wrapping_neg() % 4);
        }
    }
    Ok(Some(()))
}

/// Reads the identifier and the type of a property, and its name.
fn property(fields: &mut FieldReader<'_>) -> Option<(u16, u16)> {
    const GUID: usize = 16;
    let (kind, id) = (fields.u16()?, fields.u16()?);
    if id >= FIRST_NAMED {
        fields.bytes(GUID)?;
        if fields.u32()? == 0 {
            fields.u32()?;
        } else {
            let length = fields.length()?;
            fields.bytes(length)?;
            fields.up_to(length.wrapping_neg() % 4);
        }
    }
    Some((id, kind))
}

fn is_variable(kind: u16) -> bool {
    matches!(kind, OBJECT | STRING8 | UNICODE | SERVER_ID | RESTRICTION | RULE_ACTION | BINARY)
}

/// Returns the length of a value with padding, bytes; `None` if the type is unknown.
fn fixed_length(kind: u16) -> Option<usize> {
    match kind {
        // Unspecified and null.
        0 | 1 => Some(0),
        // Numbers of two and four bytes, errors, Booleans.
        2..=4 | 0xa | 0xb => Some(4),
        // Numbers of eight bytes, amounts, times.
        5..=7 | 0x14 | 0x40 => Some(8),
        // A GUID.
        0x48 => Some(16),
        _ => None,
    }
}
