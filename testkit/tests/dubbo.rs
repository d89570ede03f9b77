//! Dubbo's programs with ZooKeeper, in a network namespace.

use std::time::Duration;

use anyhow::{Result, ensure};
use diolkos_testkit::dubbo::Line;
use diolkos_testkit::{Dubbo, ZooKeeper, eventually, netns};

const SOON: Duration = Duration::from_secs(60);
const PROVIDERS: &str = "/dubbo/org.apache.dubbo.demo.DemoService/providers";

#[test]
fn a_provider_registers_answers_and_goes() -> Result<()> {
    netns::isolated(async {
        let zookeeper = ZooKeeper::start().await?;
        let registry = format!("zookeeper://{}", zookeeper.address());
        let writer = zookeeper.writer().await?;
        let [one, two, ..] = netns::ADDRESSES;
        let provider = |line, ip, name| {
            Dubbo::provider(line)
                .registry(&registry)
                .ip(ip)
                .name(name)
                .parameter("zone", "a")
        };
        let (new, old) = tokio::try_join!(
            provider(Line::D3, one, "new")
                .protocol("dubbo", 20880)
                .protocol("tri", 50051)
                .version("1.0.0")
                .start(),
            provider(Line::D27, two, "old").group("g").weight(7).start(),
        )?;
        let registered = writer.children(PROVIDERS).await?;
        assert_eq!(registered.len(), 3, "{registered:#?}");
        for start in [
            "dubbo%3A%2F%2F10.77.0.1%3A20880",
            "tri%3A%2F%2F10.77.0.1%3A50051",
            "dubbo%3A%2F%2F10.77.0.2%3A20880",
        ] {
            let found = registered.iter().find(|node| node.starts_with(start));
            assert!(
                found.is_some_and(|node| node.contains("zone%3Da")),
                "{start}: {registered:#?}"
            );
        }

        let direct = Dubbo::consumer(Line::D3)
            .url("dubbo://10.77.0.2:20880/org.apache.dubbo.demo.DemoService")
            .group("g")
            .calls(2);
        let looked_up = Dubbo::consumer(Line::D27)
            .registry(&registry)
            .version("1.0.0");
        let (direct, looked_up) = tokio::try_join!(direct.run(), looked_up.run())?;
        assert_eq!(direct, ["hello call 1 from old", "hello call 2 from old"]);
        assert_eq!(looked_up, ["hello call 1 from new"]);

        old.stop().await?;
        assert_eq!(writer.children(PROVIDERS).await?.len(), 2);
        new.kill()?;
        eventually(SOON, "the killed provider's nodes go", async || {
            let left = writer.children(PROVIDERS).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await;
        Ok(())
    })
}

#[test]
fn a_failure_inside_is_one_outside() -> Result<()> {
    let result = netns::isolated(async {
        netns::add_address([10, 78, 0, 1].into())?;
        tokio::net::TcpListener::bind("10.78.0.1:80").await?;
        std::process::exit(7)
    });
    let error = result.expect_err("the test ended with status 7");
    assert!(format!("{error:#}").contains("exit status: 7"), "{error:#}");
    Ok(())
}
