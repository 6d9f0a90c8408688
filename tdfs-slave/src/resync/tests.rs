//! Tests of the exchange: over trees in memory with random schedules, and over real directories.

mod disk;
mod model;
mod random;
mod world;
