//! Tests of the exchange: over trees in memory with random schedules, and over real directories.

mod bounds;
mod coverage;
mod crash;
mod disk;
mod links;
mod looks;
#[expect(clippy::cast_possible_truncation, reason = "the numbers of the model are small")]
pub mod model;
mod parts;
mod paths;
mod random;
mod rules;
pub mod story;
#[expect(clippy::cast_possible_truncation, reason = "the numbers of the model are small")]
pub mod users;
#[expect(clippy::cast_possible_truncation, reason = "the numbers of the model are small")]
mod world;
