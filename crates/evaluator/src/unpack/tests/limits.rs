//! Limits, and the order of objects, findings and notes. A simple format makes the tests independent of the others.

mod bounds;
mod container;
mod walk;
