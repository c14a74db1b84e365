//! What an object says of itself after an edit, and whether that is an answer.

use kube::core::Status;
use serde_json::Value;

use crate::schema::Leaf;

/// How an edit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The API server refused it, and said which field.
    Refused,
    /// As it should be.
    Ready,
    /// It stands still because it was told so: paused, hibernated, fenced.
    Resting(String),
    /// Somebody has to act, and it says why.
    Stalled(String),
    /// Not ready, and it says why; or it cannot write what it would.
    Waiting(String),
}

impl Ending {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Ready => "ready",
            Self::Resting(_) => "resting",
            Self::Stalled(_) => "stalled",
            Self::Waiting(_) => "waiting",
        }
    }

    /// What is told besides the word.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Refused | Self::Ready => "",
            Self::Resting(reason) | Self::Stalled(reason) | Self::Waiting(reason) => reason,
        }
    }
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nothing of its present spec, or something without a reason.
    Nothing(String),
    /// That nothing is left to do, and that something is.
    Contradiction(String),
    /// That this is how it is going to stay.
    Last(Ending),
    /// That it is under way.
    OnTheWay(Ending),
}

/// Reads an object's conditions.
pub(crate) fn word(object: &Value) -> Word {
    let status = &object["status"];
    let (generation, seen) = (&object["metadata"]["generation"], &status["observedGeneration"]);
    if seen != generation {
        return Word::Nothing(format!("its status is of generation {seen}, its spec of {generation}"));
    }
    let find = |type_: &str| status["conditions"].as_array().into_iter().flatten().find(|told| told["type"] == type_);
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let (Some(ready), Some(stalled), Some(reconciling)) = (find("Ready"), find("Stalled"), find("Reconciling")) else {
        return Word::Nothing("a condition is missing".to_owned());
    };
    for told in [ready, stalled, reconciling] {
        if text(told, "reason").is_empty() || text(told, "message").is_empty() {
            return Word::Nothing(format!("{} has no reason or no message", told["type"]));
        }
    }
    let is_true = |condition: &Value| condition["status"] == "True";
    match (is_true(stalled), is_true(reconciling), is_true(ready)) {
        (true, ..) => Word::Last(Ending::Stalled(text(stalled, "reason"))),
        (false, false, true) => match find("UpToDate").filter(|told| told["status"] == "False") {
            Some(behind) if text(reconciling, "reason") != "Paused" => {
                let (word, message) = (text(reconciling, "reason"), text(behind, "message"));
                Word::Contradiction(format!("Ready=True and Reconciling=False ({word}), but UpToDate=False: {message}"))
            }
            _ => Word::Last(Ending::Ready),
        },
        (false, false, false) => Word::Last(Ending::Resting(text(ready, "reason"))),
        (false, true, true) => Word::OnTheWay(Ending::Waiting(text(reconciling, "reason"))),
        (false, true, false) => Word::OnTheWay(Ending::Waiting(text(ready, "reason"))),
    }
}

/// What is missing in a refusal: it has to say why, and which field, or which object around it.
pub(crate) fn fault_of(refusal: &Status, leaf: &Leaf) -> Option<String> {
    if !matches!(refusal.code, 400 | 422) {
        return Some(format!("refused with code {}: {}", refusal.code, refusal.message));
    }
    let place = leaf.place();
    let causes = refusal.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let is_named = causes.iter().any(|cause| {
        let field = without_indices(&cause.field);
        let around = place.strip_prefix(&field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let whole = field == "spec" && !cause.message.contains(leaf.top());
        // Numbers that do not fit their format are told without a field.
        let is_told = without_indices(&cause.message).contains(&place);
        !cause.message.is_empty() && (is_told || (around && !whole) || field.starts_with(&place))
    });
    let is_named = is_named || (refusal.code == 400 && refusal.message.contains(leaf.name()));
    (!is_named).then(|| format!("the refusal does not name the field: {}", refusal.message))
}

/// `a[3].b` and `a[].b` are the same place.
fn without_indices(field: &str) -> String {
    let mut kept = String::new();
    let mut is_inside = false;
    for letter in field.chars() {
        is_inside = (is_inside || letter == '[') && letter != ']';
        if !is_inside || letter == '[' {
            kept.push(letter);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{leaves, specs};

    fn object(ready: &str, reconciling: &str, stalled: &str, message: &str) -> Value {
        let condition =
            |type_, status| json!({"type": type_, "status": status, "reason": "Because", "message": message});
        let conditions =
            [condition("Ready", ready), condition("Reconciling", reconciling), condition("Stalled", stalled)];
        json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "conditions": conditions}})
    }

    #[test]
    fn only_a_word_with_a_reason_about_the_present_spec_counts() {
        let because = || "Because".to_owned();
        assert_eq!(word(&object("True", "False", "False", "m")), Word::Last(Ending::Ready));
        assert_eq!(word(&object("True", "False", "True", "m")), Word::Last(Ending::Stalled(because())));
        assert_eq!(word(&object("False", "False", "False", "m")), Word::Last(Ending::Resting(because())));
        assert_eq!(word(&object("Unknown", "True", "False", "m")), Word::OnTheWay(Ending::Waiting(because())));
        assert_eq!(word(&object("True", "True", "False", "m")), Word::OnTheWay(Ending::Waiting(because())));
        assert!(matches!(word(&object("False", "True", "False", "")), Word::Nothing(_)), "no message");
        let mut behind = object("True", "False", "False", "m");
        let conditions = behind["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(json!({"type": "UpToDate", "status": "False", "reason": "RollingUpdate", "message": "m"}));
        assert!(matches!(word(&behind), Word::Contradiction(_)));
        let mut old = object("True", "False", "False", "m");
        old["metadata"]["generation"] = json!(3);
        assert!(matches!(word(&old), Word::Nothing(_)), "of an earlier spec");
    }

    #[test]
    fn a_refusal_names_the_field_or_what_is_around_it() {
        let all: Vec<Leaf> = specs().iter().flat_map(|(kind, spec)| leaves(kind, spec)).collect();
        let leaf = |place: &str| all.iter().find(|leaf| leaf.place() == place).unwrap();
        let refusal = |code: u16, field: &str, message: &str| -> Status {
            let causes = json!([{"reason": "FieldValueInvalid", "message": message, "field": field}]);
            serde_json::from_value(json!({"code": code, "message": message, "details": {"causes": causes}})).unwrap()
        };
        let fault = |code, field, place| fault_of(&refusal(code, field, "wrong"), leaf(place));
        assert_eq!(fault(422, "spec.tolerations[3].key", "spec.tolerations[].key"), None);
        assert_eq!(fault(422, "spec.image", "spec.image.tag"), None);
        assert_eq!(fault(422, "spec.pod.labels.a/b", "spec.pod.labels"), None);
        assert!(fault(422, "spec.imagePullSecrets", "spec.image.tag").is_some());
        assert!(fault(422, "spec", "spec.image.tag").is_some(), "everything is in the spec");
        assert_eq!(fault_of(&refusal(422, "spec", "the chainId cannot change"), leaf("spec.chainId")), None);
        assert!(fault(500, "spec.image.tag", "spec.image.tag").is_some());
        assert!(fault_of(&refusal(422, "spec.image.tag", ""), leaf("spec.image.tag")).is_some(), "no reason");
    }
}
