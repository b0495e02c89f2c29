//! Declaration of keys. A section is a struct; the declaration of a field names its key, its type, and how its value is
//! parsed and formatted. Reading, displaying and comparing follow from the declaration, so a key is written once.
//!
//! A new key is one line in the struct of its section, such as `pub verbose: bool = boolean(),`, and its default in
//! `config/default.toml`.

use std::marker::PhantomData;

use super::{changes::Comparison, key::Key, lines::Lines, reader::Section};

/// The declaration of a field: one key, or several keys that make one value.
pub(super) trait Field {
    type Value: Clone + PartialEq;

    /// Returns `None` only if the value is missing or invalid.
    fn read(&self, section: &mut Section<'_, '_>, key: &'static str) -> Option<Self::Value>;

    fn write(&self, value: &Self::Value, key: &'static str, lines: &mut Lines);

    /// Compares a newly loaded value with the running one, and keeps the running one if the value is read only at
    /// startup.
    fn reload(&self, new: &mut Self::Value, old: &Self::Value, comparison: &mut Comparison) {
        if new != old {
            comparison.add_field();
        }
    }
}

/// A value that consists of several keys: a section, or a part of one.
pub(super) trait KeyGroup: Clone + PartialEq {
    /// Returns `None` only if a value is missing or invalid. Reads all keys even then.
    fn read(section: &mut Section<'_, '_>) -> Option<Self>;

    fn write(&self, lines: &mut Lines);

    /// As [`Field::reload`].
    fn reload(&mut self, old: &Self, comparison: &mut Comparison) {
        if self != old {
            comparison.add_lines(|lines| self.write(lines), |lines| old.write(lines));
        }
    }
}

impl<T: Clone + PartialEq + 'static> Field for Key<T> {
    type Value = T;

    fn read(&self, section: &mut Section<'_, '_>, key: &'static str) -> Option<T> {
        section.read(key, self)
    }

    fn write(&self, value: &T, key: &'static str, lines: &mut Lines) {
        if let Some(text) = self.format(value) {
            lines.add(key, text, self.is_opaque);
        }
    }
}

/// A field with the keys of a group, which do not contain the field's name.
pub(super) struct GroupField<T>(PhantomData<T>);

pub(super) fn group<T: KeyGroup>() -> GroupField<T> {
    GroupField(PhantomData)
}

impl<T: KeyGroup> Field for GroupField<T> {
    type Value = T;

    fn read(&self, section: &mut Section<'_, '_>, _: &'static str) -> Option<T> {
        T::read(section)
    }

    fn write(&self, value: &T, _: &'static str, lines: &mut Lines) {
        value.write(lines);
    }

    fn reload(&self, new: &mut T, old: &T, comparison: &mut Comparison) {
        new.reload(old, comparison);
    }
}

/// A field whose keys are in another section.
pub(super) struct Within<F> {
    section: &'static str,
    field: F,
}

pub(super) fn within<F: Field>(section: &'static str, field: F) -> Within<F> {
    Within { section, field }
}

impl<F: Field> Field for Within<F> {
    type Value = F::Value;

    fn read(&self, section: &mut Section<'_, '_>, key: &'static str) -> Option<F::Value> {
        self.field.read(&mut section.within(self.section), key)
    }

    fn write(&self, value: &F::Value, key: &'static str, lines: &mut Lines) {
        lines.within(self.section, |lines| self.field.write(value, key, lines));
    }

    fn reload(&self, new: &mut F::Value, old: &F::Value, comparison: &mut Comparison) {
        comparison.within(self.section, |comparison| self.field.reload(new, old, comparison));
    }
}

/// A field that is read only at startup: the resources that depend on it (listeners, worker tasks, allocated tables,
/// the directory in use) exist for the lifetime of the process. A reload keeps the running value.
pub(super) struct Restart<F>(F);

pub(super) fn restart<F: Field>(field: F) -> Restart<F> {
    Restart(field)
}

impl<F: Field> Field for Restart<F> {
    type Value = F::Value;

    fn read(&self, section: &mut Section<'_, '_>, key: &'static str) -> Option<F::Value> {
        self.0.read(section, key)
    }

    fn write(&self, value: &F::Value, key: &'static str, lines: &mut Lines) {
        self.0.write(value, key, lines);
    }

    fn reload(&self, new: &mut F::Value, old: &F::Value, comparison: &mut Comparison) {
        comparison.at_startup(|comparison| self.0.reload(new, old, comparison));
        new.clone_from(old);
    }
}

/// Defines a struct and its keys: `name: Type = field`, where the field implements [`Field`]. An optional `check` is a
/// function that adjusts the value and records conflicts between keys.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty = $declaration:expr),+ $(,)?
        }
        $(check $check:path)?
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type),+
        }

        $crate::config::keys::keys! { $name { $($field = $declaration),+ } $(check $check)? }
    };
}

/// Declares the keys of an existing struct.
macro_rules! keys {
    ($name:ty { $($field:ident = $declaration:expr),+ $(,)? } $(check $check:path)?) => {
        impl $crate::config::keys::KeyGroup for $name {
            fn read(section: &mut $crate::config::reader::Section<'_, '_>) -> Option<Self> {
                // Reads all keys before the first `?`, so that all problems are reported.
                let ($($field,)+) = ($(
                    $crate::config::keys::Field::read(&$declaration, section, stringify!($field)),
                )+);
                let settings = Self { $($field: $field?),+ };
                $(let settings = $check(settings, section);)?
                Some(settings)
            }

            $crate::config::keys::write_and_reload! { $($field = $declaration),+ }
        }
    };
}

/// Defines the methods of [`KeyGroup`] other than `read`.
macro_rules! write_and_reload {
    ($($field:ident = $declaration:expr),+ $(,)?) => {
        fn write(&self, lines: &mut $crate::config::lines::Lines) {
            // Without `..`, so that no field lacks a declaration.
            let Self { $($field: _),+ } = self;
            $($crate::config::keys::Field::write(
                &$declaration,
                &self.$field,
                stringify!($field),
                lines,
            );)+
        }

        fn reload(&mut self, old: &Self, comparison: &mut $crate::config::changes::Comparison) {
            $(
                comparison.field = stringify!($field);
                $crate::config::keys::Field::reload(
                    &$declaration,
                    &mut self.$field,
                    &old.$field,
                    comparison,
                );
            )+
        }
    };
}

pub(super) use {keys, settings, write_and_reload};
