use serde_json::json;

use super::*;

/// Returns a base chain with this policy and these rules, and one that can be jumped to.
fn ruleset(policy: &str, rules: &[Value], called: &[Value]) -> Ruleset {
    let rule = |chain: &str, expr: &Value| json!({"rule": {"family": "inet", "table": "t", "chain": chain, "handle": 1, "expr": expr}});
    let mut items = vec![
        json!({"metainfo": {"version": "1.1"}}),
        json!({"table": {"family": "inet", "name": "t"}}),
        json!({"chain": {"family": "inet", "table": "t", "name": "in", "type": "filter", "hook": "input",
                         "prio": 0, "policy": policy}}),
        json!({"chain": {"family": "inet", "table": "t", "name": "called"}}),
    ];
    items.extend(rules.iter().map(|expr| rule("in", expr)));
    items.extend(called.iter().map(|expr| rule("called", expr)));
    Ruleset::parse(&serde_json::to_vec(&json!({"nftables": items})).unwrap()).unwrap()
}

fn verdict(policy: &str, rules: &[Value], called: &[Value]) -> RulesetVerdict {
    ruleset(policy, rules, called).verdict(packet(true, "tcp"))
}

fn packet(is_v4: bool, protocol: &'static str) -> Packet<'static> {
    Packet {
        is_v4,
        protocol: Some(protocol),
        port: Some(4001),
        state: "new",
        way: Way::In,
    }
}

fn chain() -> ChainName {
    ChainName {
        family: "inet".to_owned(),
        table: "t".to_owned(),
        name: "in".to_owned(),
    }
}

fn port(protocol: &str, right: Value) -> Value {
    json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}})
}

fn from(address: &str) -> Value {
    json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": address}})
}

#[test]
fn the_policy_decides_what_no_rule_does() {
    assert_eq!(verdict("accept", &[], &[]), RulesetVerdict::Passed);
    assert_eq!(verdict("drop", &[], &[]), RulesetVerdict::Dropped(chain()));
    let usual = [
        json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
               {"accept": null}]),
        json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]),
        json!([port("tcp", json!(22)), {"counter": {"packets": 1, "bytes": 2}}, {"accept": null}]),
        json!([port("udp", json!(4001)), {"accept": null}]),
    ];
    assert_eq!(verdict("drop", &usual, &[]), RulesetVerdict::Dropped(chain()));
}

#[test]
fn a_rule_for_the_port_decides_in_every_form() {
    for right in [
        json!(4001),
        json!({"set": [22, 4001]}),
        json!({"range": [4000, 4010]}),
        json!({"set": [22, {"range": [4000, 4010]}]}),
    ] {
        for protocol in ["tcp", "th"] {
            let rule = json!([port(protocol, right.clone()), {"accept": null}]);
            assert_eq!(verdict("drop", &[rule], &[]), RulesetVerdict::Passed, "{right}");
        }
    }
    let reject = json!([port("tcp", json!(4001)), {"reject": {"type": "tcp reset"}}]);
    assert_eq!(
        verdict("accept", &[reject], &[]),
        RulesetVerdict::Dropped(chain())
    );
    let negated = json!([{"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                                    "right": 22}}, {"drop": null}]);
    assert_eq!(
        verdict("accept", &[negated], &[]),
        RulesetVerdict::Dropped(chain())
    );
}

#[test]
fn what_depends_on_the_sender_is_unclear_only_if_it_matters() {
    let accept = json!([from("192.0.2.2"), {"accept": null}]);
    let drop = json!([from("192.0.2.2"), {"drop": null}]);
    let of_set = json!([port("tcp", json!("@ports")), {"accept": null}]);

    assert_eq!(
        verdict("drop", std::slice::from_ref(&accept), &[]),
        RulesetVerdict::Unclear(chain())
    );
    assert_eq!(verdict("accept", &[accept], &[]), RulesetVerdict::Passed);
    assert_eq!(
        verdict("accept", std::slice::from_ref(&drop), &[]),
        RulesetVerdict::Unclear(chain())
    );
    assert_eq!(verdict("drop", &[drop], &[]), RulesetVerdict::Dropped(chain()));
    assert_eq!(verdict("drop", &[of_set], &[]), RulesetVerdict::Unclear(chain()));
    let limited = json!([port("tcp", json!(4001)), {"limit": {"rate": 1}}, {"accept": null}]);
    assert_eq!(verdict("drop", &[limited], &[]), RulesetVerdict::Unclear(chain()));
}

#[test]
fn a_map_is_looked_up_and_what_is_not_said_is_unclear() {
    let map = |key: Value, data: Value| json!([{"vmap": {"key": key, "data": {"set": data}}}]);
    let state = map(
        json!({"ct": {"key": "state"}}),
        json!([["established", {"accept": null}], ["invalid", {"drop": null}]]),
    );
    let dport = json!({"payload": {"protocol": "tcp", "field": "dport"}});
    let ports = map(dport, json!([[22, {"accept": null}], [4001, {"drop": null}]]));
    let sources = map(
        json!({"payload": {"protocol": "ip", "field": "saddr"}}),
        json!([["192.0.2.2", {"drop": null}]]),
    );
    let xt = json!([{"xt": {"type": "target", "name": "REJECT"}}]);

    assert_eq!(verdict("accept", &[state], &[]), RulesetVerdict::Passed);
    assert_eq!(verdict("accept", &[ports], &[]), RulesetVerdict::Dropped(chain()));
    assert_eq!(
        verdict("accept", &[sources], &[]),
        RulesetVerdict::Unclear(chain())
    );
    assert_eq!(verdict("accept", &[xt], &[]), RulesetVerdict::Unclear(chain()));
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let jump = json!([{"jump": {"target": "called"}}]);
    let goto = json!([{"goto": {"target": "called"}}]);
    let accept = json!([port("tcp", json!(4001)), {"accept": null}]);

    assert_eq!(
        verdict("drop", std::slice::from_ref(&jump), std::slice::from_ref(&accept)),
        RulesetVerdict::Passed
    );
    assert_eq!(
        verdict("drop", &[jump.clone(), accept.clone()], &[]),
        RulesetVerdict::Passed
    );
    assert_eq!(
        verdict("drop", &[goto, accept], &[]),
        RulesetVerdict::Dropped(chain())
    );
    let endless = verdict("accept", std::slice::from_ref(&jump), std::slice::from_ref(&jump));
    assert_eq!(endless, RulesetVerdict::Unclear(chain()));
    let returns = [
        json!([from("192.0.2.2"), {"return": null}]),
        json!([{"accept": null}]),
    ];
    assert_eq!(
        verdict("drop", &[jump], &returns),
        RulesetVerdict::Unclear(chain())
    );
    assert_eq!(verdict("accept", &returns, &[]), RulesetVerdict::Passed);
}

#[test]
fn what_leaves_is_known_by_interface_and_address() {
    let rule = |left: Value, right: Value, end: Value| json!([{"match": {"op": "==", "left": left, "right": right}}, end]);
    let drop = || json!({"drop": null});
    let name = || json!({"meta": {"key": "oifname"}});
    let to = || json!({"payload": {"protocol": "ip", "field": "daddr"}});
    let verdict = |rule: Value, interface| {
        let items = json!({"nftables": [
            {"chain": {"family": "inet", "table": "t", "name": "in", "type": "filter", "hook": "output", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "t", "chain": "in", "expr": rule}},
        ]});
        let way = Way::Out {
            interface,
            to: [192, 0, 2, 2].into(),
        };
        let rules = Ruleset::parse(&serde_json::to_vec(&items).unwrap()).unwrap();
        let out = rules.verdict(Packet {
            way,
            ..packet(true, "tcp")
        });
        assert_eq!(rules.verdict(packet(true, "tcp")), RulesetVerdict::Passed);
        out
    };
    let dropped = || RulesetVerdict::Dropped(chain());

    assert_eq!(
        verdict(rule(name(), json!("eth0"), drop()), Some("eth0")),
        dropped()
    );
    assert_eq!(
        verdict(rule(name(), json!("eth*"), drop()), Some("eth0")),
        dropped()
    );
    assert_eq!(
        verdict(rule(name(), json!("sr0"), drop()), Some("eth0")),
        RulesetVerdict::Passed
    );
    assert_eq!(
        verdict(rule(name(), json!("sr0"), drop()), None),
        RulesetVerdict::Unclear(chain())
    );
    for held in [
        json!("192.0.2.2"),
        json!({"prefix": {"addr": "192.0.2.0", "len": 24}}),
        json!({"range": ["192.0.2.1", "192.0.2.9"]}),
        json!({"set": ["10.0.0.1", {"prefix": {"addr": "192.0.2.0", "len": 30}}]}),
    ] {
        assert_eq!(
            verdict(rule(to(), held.clone(), drop()), None),
            dropped(),
            "{held}"
        );
    }
    assert_eq!(
        verdict(rule(to(), json!("192.0.2.3"), drop()), None),
        RulesetVerdict::Passed
    );
    assert_eq!(
        verdict(rule(to(), json!("@peers"), drop()), None),
        RulesetVerdict::Unclear(chain())
    );
    let port = rule(
        json!({"payload": {"protocol": "tcp", "field": "dport"}}),
        json!({"set": [80, 443]}),
        json!({"accept": null}),
    );
    assert_eq!(verdict(port, None), RulesetVerdict::Passed);
    assert_eq!(verdict(json!([{"reject": null}]), None), dropped());
}

#[test]
fn what_passes_through_is_known_by_both_interfaces_and_by_its_state() {
    let is = |key: &str, right: Value| json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}});
    let state =
        |states: Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}});
    let usual = json!([state(json!(["established", "related"])), {"accept": null}]);
    let invalid = json!([state(json!("invalid")), {"drop": null}]);
    let back = json!([is("iifname", json!("sr0")), is("oifname", json!("lan0")), {"accept": null}]);
    let other = json!([is("iifname", json!("sr0")), is("oifname", json!("wan0")), {"accept": null}]);
    let out = json!([is("iifname", json!("lan0")), is("oifname", json!("sr0")), {"accept": null}]);
    let verdict = |policy: &str, rules: &[&Value]| {
        let mut items = vec![
            json!({"chain": {"family": "inet", "table": "t", "name": "in", "type": "filter", "hook": "forward", "policy": policy}}),
        ];
        let rule =
            |expr: &&Value| json!({"rule": {"family": "inet", "table": "t", "chain": "in", "expr": expr}});
        items.extend(rules.iter().map(rule));
        let json = serde_json::to_vec(&json!({"nftables": items})).unwrap();
        Ruleset::parse(&json).unwrap().verdict(Packet {
            is_v4: true,
            protocol: Some("tcp"),
            port: None,
            state: "invalid",
            way: Way::Through {
                from: "sr0",
                to: "lan0",
            },
        })
    };
    let dropped = RulesetVerdict::Dropped(chain());

    assert_eq!(verdict("drop", &[&usual, &out]), dropped);
    assert_eq!(verdict("drop", &[&usual, &other]), dropped);
    assert_eq!(verdict("accept", &[&usual, &invalid]), dropped);
    assert_eq!(verdict("drop", &[&invalid, &back]), dropped);
    assert_eq!(verdict("drop", &[&back, &invalid]), RulesetVerdict::Passed);
    assert_eq!(verdict("accept", &[&usual]), RulesetVerdict::Passed);
}

#[test]
fn a_chain_of_the_other_family_does_not_count() {
    let json = br#"{"nftables": [{"chain": {"family": "ip6", "table": "t", "name": "in", "type": "filter",
        "hook": "input", "policy": "drop"}}]}"#;
    let ruleset = Ruleset::parse(json).unwrap();
    assert_eq!(ruleset.verdict(packet(true, "udp")), RulesetVerdict::Passed);
    assert!(matches!(
        ruleset.verdict(packet(false, "udp")),
        RulesetVerdict::Dropped(_)
    ));
    assert!(Ruleset::parse(b"nothing").is_err());
}
