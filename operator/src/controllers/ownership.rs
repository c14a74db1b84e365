//! Whose an object is.

use kube::{Resource, api::ObjectMeta};

/// Whose an object of a wanted name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Controlled by the owner.
    Ours,
    /// Controlled by an earlier object of the same kind and name; the garbage collector takes it.
    Former,
    /// Somebody else's.
    Foreign,
}

/// Whose the object with this metadata is, seen from `owner`.
pub fn ownership<K: Resource<DynamicType = ()>>(object: &ObjectMeta, owner: &K) -> Ownership {
    let Some(controller) = object.owner_references.iter().flatten().find(|owner| owner.controller == Some(true)) else {
        return Ownership::Foreign;
    };
    if Some(&controller.uid) == owner.meta().uid.as_ref() {
        Ownership::Ours
    } else if controller.kind == K::kind(&()) && Some(&controller.name) == owner.meta().name.as_ref() {
        Ownership::Former
    } else {
        Ownership::Foreign
    }
}
