use k8s_openapi::api::core::v1::NodeCondition;

use super::*;

fn condition(type_: &str, status: &str) -> NodeCondition {
    NodeCondition { type_: type_.into(), status: status.into(), ..NodeCondition::default() }
}

fn status(conditions: Vec<NodeCondition>) -> NodeStatus {
    NodeStatus { conditions: Some(conditions), ..NodeStatus::default() }
}

#[test]
fn ready_is_the_monitors_and_other_conditions_are_the_agents() {
    let old = status(vec![condition("Ready", "True"), condition("DiskPressure", "False")]);
    let given = status(vec![condition("Ready", "False"), condition("DiskPressure", "True")]);
    let new = merged(&old, &given).conditions.unwrap();
    assert_eq!(new, vec![condition("Ready", "True"), condition("DiskPressure", "True")]);
}

#[test]
fn what_the_agent_leaves_out_stays() {
    let old = NodeStatus {
        capacity: Some([("cpu".to_owned(), Default::default())].into()),
        ..NodeStatus::default()
    };
    assert_eq!(merged(&old, &NodeStatus::default()), old);
}
