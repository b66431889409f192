//! What a shard needs of the control plane, so that shards run in simulation with a control plane
//! of their own.

use std::sync::Arc;

use crate::{
    control::{Control, ControlReply, ControlRequest, Overloaded},
    controller::MetadataImage,
};

/// Where an answer goes. Runs on the control thread: it only passes the answer on.
pub type Answer = Box<dyn FnOnce(ControlReply) + Send>;

/// The control plane as a shard sees it.
pub trait ControlPlane: 'static {
    /// The newest metadata.
    fn image(&self) -> Arc<MetadataImage>;

    /// Index of the newest metadata: a cheap look whether a kept image is still the newest.
    fn image_index(&self) -> u64;

    /// Queues a request; what it changes is in [`ControlPlane::image`] before the answer.
    ///
    /// # Errors
    /// The queue is full.
    fn submit(&self, request: ControlRequest, answer: Answer) -> Result<(), Overloaded>;
}

impl ControlPlane for Control {
    fn image(&self) -> Arc<MetadataImage> {
        Control::image(self)
    }

    fn image_index(&self) -> u64 {
        Control::image_index(self)
    }

    fn submit(&self, request: ControlRequest, answer: Answer) -> Result<(), Overloaded> {
        Control::submit(self, request, answer)
    }
}
