//! Does what was planned, one write at a time.

use kube::Resource as _;

use super::plan::Step;
use crate::{
    api::BizraNode,
    controllers::Context,
    kubernetes::{Announcement, Severity, WriteError, WriteOutcome},
};

/// Executes the steps in order. Stops at the first that somebody else was faster with: the rest was planned from what
/// is no longer so, and the next observation comes soon.
pub(super) async fn act(context: &Context, node: &BizraNode, steps: &[Step]) -> Result<(), WriteError> {
    for step in steps {
        match context.write(&step.write).await? {
            WriteOutcome::Written => {
                if let Some(event) = &step.event {
                    let announcement = Announcement {
                        severity: Severity::Normal,
                        reason: event.word.clone(),
                        note: event.message.clone(),
                    };
                    context.announcer.announce(node.object_ref(&()), announcement);
                }
            }
            WriteOutcome::Superseded => break,
        }
    }
    Ok(())
}
