//! The operator's API: refusals, lists, deletion, health, reflection.

use dysvr_proto::wire::operator::{
    ChangeRequest, FileRequest, ListRequest, Strategy, TaskListRequest, file_change::Kind,
};
use tempfile::TempDir;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::agent::Journal;
use crate::support::controller::{Controller, change, waves};
use crate::support::etcd::Etcd;
use crate::support::{free_port, until};
use crate::{agents, file_store, vhost};

#[tokio::test]
async fn a_bad_change_is_refused_with_all_its_problems_and_nothing_is_stored() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let one = "server {\n    vsvc_id 7;\n    listen 80;\n    server_name one;\n}\n";
    operator.apply(&[("auto_vhost/one.conf", one)], Strategy::default()).await;
    let two = "\nserver {\n    vsvc_id 7;\n    listen 80;\n    server_name two;\n}\n";
    let bad = [("auto_vhost/two.conf", two), ("auto_vhost/torn.conf", "server {\n    listen 80;\n")];
    for dry in [true, false] {
        let reply = match dry {
            true => operator.0.clone().validate(change(&bad, Strategy::default())).await.unwrap().into_inner(),
            false => {
                let reply = operator.apply(&bad, Strategy::default()).await;
                assert_eq!((reply.revision, reply.rollout), (0, 0));
                reply.plan.unwrap()
            }
        };
        let problem = |file: &str| reply.problems.iter().find(|problem| problem.file == file).cloned();
        let duplicate = problem("auto_vhost/two.conf").unwrap();
        assert!(duplicate.text.contains("vsvc_id"), "{duplicate:?}");
        assert!(duplicate.line > 0);
        assert!(problem("auto_vhost/torn.conf").is_some_and(|problem| problem.line > 0), "{:?}", reply.problems);
    }
    let revisions = operator.0.clone().list_revisions(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(revisions.items.len(), 1);

    let codes = [
        (change(&[], Strategy::default()), "needs files"),
        (change(&[("../nginx.conf", "")], Strategy::default()), "begins with a dot"),
        (change(&[("a.conf", ""), ("a.conf", "")], Strategy::default()), "given twice"),
        (change(&[("a.conf", "")], waves(&["0"])), "wave of size 0"),
        (change(&[("a.conf", "")], waves(&["many"])), "neither a count"),
    ];
    for (request, text) in codes {
        let status = operator.0.clone().apply(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{}", status.message());
    }
}

#[tokio::test]
async fn a_deleted_vhost_takes_the_upstreams_along_that_nobody_else_uses() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let vhost = |name: &str, id: u64, own: &str, other: &str| {
        format!(
            "include auto_upstream/{own}.conf;\nserver {{\n    vsvc_id {id};\n    listen 80;\n    server_name {name};\n    \
             location / {{\n        proxy_pass http://{own};\n    }}\n    location /o {{\n        \
             proxy_pass http://{other};\n    }}\n    include common_location.conf;\n}}\n"
        )
    };
    let upstream = |name: &str| format!("upstream {name} {{\n    server 127.0.0.1:8000;\n}}\n");
    let files = [
        ("auto_vhost/a.conf", vhost("a.example", 1, "ua", "ub")),
        ("auto_vhost/b.conf", vhost("b.example", 2, "ub", "ub")),
        ("auto_upstream/ua.conf", upstream("ua")),
        ("auto_upstream/ub.conf", upstream("ub")),
        ("common_location.conf", "location /common {\n    return 204;\n}\n".to_owned()),
    ];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let reply = operator.apply(&files, Strategy::default()).await;
    assert_eq!(reply.revision, 1, "{:?}", reply.plan.unwrap().problems);
    let upstreams = operator.0.clone().list_upstreams(ListRequest::default()).await.unwrap().into_inner().items;
    let shared = upstreams.iter().find(|upstream| upstream.ups_id == "ub").unwrap();
    assert_eq!(shared.vsvc_ids, [1, 2]);

    let delete = |name: &str| ChangeRequest { delete_vhosts: vec![name.into()], ..ChangeRequest::default() };
    let nothing = operator.0.clone().apply(delete("c.example")).await.unwrap().into_inner().plan.unwrap();
    assert!(nothing.problems[0].text.contains("nothing to delete"), "{nothing:?}");
    // Another vhost passes to an upstream that would go along.
    let used = operator.0.clone().apply(delete("b.example")).await.unwrap().into_inner();
    let problem = &used.plan.unwrap().problems[0];
    assert!(used.revision == 0 && problem.file == "auto_vhost/a.conf" && problem.text.contains("ub"), "{problem:?}");
    let gone = operator.0.clone().apply(delete("a.example")).await.unwrap().into_inner();
    let names = |plan: dysvr_proto::wire::operator::ChangePlan| {
        plan.changes.iter().map(|c| (c.name.clone(), c.kind())).collect::<Vec<_>>()
    };
    let deleted = |name: &str| (name.to_owned(), Kind::Delete);
    assert_eq!(names(gone.plan.unwrap()), [deleted("auto_upstream/ua.conf"), deleted("auto_vhost/a.conf")]);
    let last = operator.0.clone().apply(delete("2")).await.unwrap().into_inner();
    assert_eq!(last.plan.unwrap().changes.len(), 2, "what is shared stays");

    let file = |revision| FileRequest { name: "auto_vhost/a.conf".into(), revision };
    let old = operator.0.clone().get_file(file(1)).await.unwrap().into_inner();
    assert!(String::from_utf8(old.file.unwrap().content).unwrap().contains("a.example"));
    assert_eq!(operator.0.clone().get_file(file(0)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(operator.0.clone().get_file(file(9)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn ids_are_given_once_and_stay() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let ids = async || {
        let list = operator.0.clone().list_vhosts(ListRequest::default()).await.unwrap().into_inner();
        list.items.iter().map(|vhost| (vhost.server_names[0].clone(), vhost.vsvc_id)).collect::<Vec<_>>()
    };
    let fixed = "server {\n    vsvc_id 2;\n    listen 80;\n    server_name fixed;\n    return 204;\n}\n";
    let two = format!("{}{}", vhost("b", 204), vhost("c", 204));
    operator
        .apply(
            &[("auto_vhost/fixed.conf", fixed), ("auto_vhost/a.conf", &vhost("a", 204)), ("auto_vhost/b.conf", &two)],
            Strategy::default(),
        )
        .await;
    let given = [("a", 1), ("b", 3), ("c", 4), ("fixed", 2)].map(|(name, id)| (name.to_owned(), id));
    assert_eq!(ids().await, given);
    // The operator's file with another content keeps the id; a deleted one's is not given again.
    let changed = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 205))], Strategy::default()).await;
    assert_eq!(changed.revision, 2);
    assert_eq!(ids().await, given);
    let delete = ChangeRequest { delete_vhosts: vec!["auto_vhost/b.conf".into()], ..ChangeRequest::default() };
    operator.0.clone().apply(delete).await.unwrap();
    operator.apply(&[("auto_vhost/d.conf", &vhost("d", 204))], Strategy::default()).await;
    assert_eq!(ids().await, [("a", 1), ("d", 5), ("fixed", 2)].map(|(name, id)| (name.to_owned(), id)));
}

#[tokio::test]
async fn lists_know_what_changed_when_and_which_task_did_it() {
    let dir = TempDir::new().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let controller = Controller::start_on(file_store(&dir).await, &address).await;
    let operator = controller.operator().await;
    let _agents = agents(2, &controller.address, &Journal::default());
    operator.connected(2).await;
    for name in ["a", "b"] {
        let file = format!("auto_vhost/{name}.conf");
        let request =
            ChangeRequest { message: format!("add {name}"), ..change(&[(&file, &vhost(name, 204))], waves(&["1"])) };
        let reply = operator.0.clone().apply(request).await.unwrap().into_inner();
        operator.watch(reply.rollout).await;
    }
    let vhosts = operator.0.clone().list_vhosts(ListRequest { names: vec!["a".into()] }).await.unwrap().into_inner();
    assert_eq!((vhosts.items.len(), vhosts.items[0].revision, vhosts.revision), (1, 1, 2));
    let revisions = operator.0.clone().list_revisions(ListRequest::default()).await.unwrap().into_inner().items;
    let shown: Vec<_> = revisions.iter().map(|r| (r.number, r.parent, r.message.as_str(), r.rollout)).collect();
    assert_eq!(shown, [(1, 0, "add a", 1), (2, 1, "add b", 2)]);
    assert_eq!(revisions[0].changes[0].name, "auto_vhost/a.conf");

    let tasks = async |operator: &crate::support::controller::Operator| {
        let request = TaskListRequest { rollout: 1, ..TaskListRequest::default() };
        let mut items = operator.0.clone().list_tasks(request).await.unwrap().into_inner().items;
        items.sort_by(|a, b| a.node.cmp(&b.node));
        items
    };
    let before = tasks(&operator).await;
    assert_eq!(before.iter().map(|task| task.node.as_str()).collect::<Vec<_>>(), ["n0", "n1"]);
    assert_eq!(before[0].report.as_ref().unwrap().timings.as_ref().unwrap().total_us, 1500);
    controller.stop().await;
    let controller = Controller::start_on(file_store(&dir).await, &address).await;
    let operator = controller.operator().await;
    assert_eq!(tasks(&operator).await, before, "reports outlive the controller");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_the_store_and_liveness_does_not() {
    let etcd = Etcd::start().await;
    let store = dysvr_controller::store::open(&etcd.address()).await.unwrap();
    let controller = Controller::start(store).await;
    let _operator = controller.operator().await;
    let health = HealthClient::new(controller.channel());
    let status = async |service: &str, wanted: ServingStatus| {
        until(&format!("{service:?} to be {wanted:?}"), async || {
            let request = HealthCheckRequest { service: service.into() };
            let answer = health.clone().check(request).await.ok()?.into_inner();
            (answer.status() == wanted).then_some(())
        })
        .await;
    };
    for service in ["", "readiness", "liveness", "dysvr.fleet.v1.Fleet", "dysvr.operator.v1.Operator"] {
        status(service, ServingStatus::Serving).await;
    }
    etcd.signal("STOP");
    for service in ["", "readiness", "dysvr.operator.v1.Operator"] {
        status(service, ServingStatus::NotServing).await;
    }
    status("liveness", ServingStatus::Serving).await;
    etcd.signal("CONT");
    status("readiness", ServingStatus::Serving).await;
}

#[tokio::test]
async fn reflection_names_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(controller.channel());
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    for service in ["dysvr.fleet.v1.Fleet", "dysvr.operator.v1.Operator", "grpc.health.v1.Health"] {
        assert!(list.service.iter().any(|found| found.name == service), "{service}");
    }
}

#[tokio::test]
async fn what_would_have_no_effect_is_refused() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], Strategy::default()).await;
    let unreached = "upstream u {\n    server 127.0.0.1:8000;\n}\n";
    let cases = [
        ("auto_upstream/u.conf", unreached.to_owned(), "no include reaches this file"),
        ("auto_vhost/b.conf", vhost("a", 205), "conflicting server name \"a\" on 0.0.0.0:80"),
        (
            "auto_vhost/b.conf",
            "server {\n    listen 80;\n    no_such_thing on;\n}\n".into(),
            "unknown directive \"no_such_thing\"",
        ),
        (
            "auto_vhost/b.conf",
            "server {\n    location / {\n        proxy_pass http://nowhere;\n    }\n}\n".into(),
            "host not found in upstream",
        ),
    ];
    for (name, text, expected) in cases {
        let plan = operator.apply(&[(name, &text)], Strategy::default()).await.plan.unwrap();
        let problem = plan.problems.first().unwrap_or_else(|| panic!("{text} is accepted"));
        assert!(problem.file == name && problem.text.contains(expected), "{problem:?}");
    }
}
