//! Where a position of an earlier epoch lies in the present one.

use crate::message::Branch;
use crate::{Lsn, Position};

/// The LSN of the present epoch (the last of `lineage`) that is the same point of history as `position`:
/// a position of the present epoch itself, or one at which each later epoch branched off.
pub fn present_lsn(lineage: &[Branch], position: Position) -> Option<Lsn> {
    let at = lineage.iter().rposition(|branch| branch.epoch == position.epoch)?;
    let mut here = position;
    for branch in &lineage[at + 1..] {
        if branch.from != Some(here) {
            return None;
        }
        here = Position { epoch: branch.epoch, lsn: Lsn::ZERO };
    }
    Some(here.lsn)
}
