//! What an operator does, by HTTP.

use anyhow::Result;
use reqwest::Method;

use super::{IDENTITY, Nacos, NacosInstance};

/// The names of parameters with their values.
type Query<'a> = [(&'a str, &'a str)];

impl Nacos {
    /// `GET` of a path below [`http_url`](Self::http_url).
    ///
    /// # Errors
    /// When it is not answered by success.
    pub async fn get(&self, path: &str, query: &Query<'_>) -> Result<String> {
        self.send(Method::GET, path, query).await
    }

    /// `POST`, with the parameters as a form.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(&self, path: &str, form: &Query<'_>) -> Result<String> {
        self.send(Method::POST, path, form).await
    }

    /// `PUT`, with the parameters as a form.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put(&self, path: &str, form: &Query<'_>) -> Result<String> {
        self.send(Method::PUT, path, form).await
    }

    /// `DELETE` with parameters.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete(&self, path: &str, query: &Query<'_>) -> Result<String> {
        self.send(Method::DELETE, path, query).await
    }

    async fn send(&self, method: Method, path: &str, parameters: &Query<'_>) -> Result<String> {
        let in_url = matches!(method, Method::GET | Method::DELETE);
        let request = self
            .http
            .request(method, format!("{}{path}", self.http_url()))
            .header(IDENTITY.0, IDENTITY.1);
        let request = if in_url {
            request.query(parameters)
        } else {
            request.form(parameters)
        };
        crate::body_of(request.send().await?).await
    }

    /// Registers a persistent instance, or what is new about one. Nacos looks after its health by connecting to it;
    /// [`without_checks`](Self::without_checks) of its cluster, it is as healthy as it was registered last. (The call
    /// that is meant for changing it fails in this release.)
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn register(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        instance: &NacosInstance,
    ) -> Result<()> {
        let instance = instance.clone().persistent();
        self.about(
            "/v1/ns/instance",
            Method::POST,
            namespace,
            group,
            service,
            &instance,
        )
        .await
    }

    /// Gives an instance, ephemeral or not, this weight, these metadata and this word on whether it is enabled. They
    /// stay with its address when it registers again.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn update(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        instance: &NacosInstance,
    ) -> Result<()> {
        self.about(
            "/v1/ns/instance",
            Method::PUT,
            namespace,
            group,
            service,
            instance,
        )
        .await
    }

    /// Takes a persistent instance out.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn deregister(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        instance: &NacosInstance,
    ) -> Result<()> {
        let instance = instance.clone().persistent();
        self.about(
            "/v1/ns/instance",
            Method::DELETE,
            namespace,
            group,
            service,
            &instance,
        )
        .await
    }

    async fn about(
        &self,
        path: &str,
        method: Method,
        namespace: &str,
        group: &str,
        service: &str,
        instance: &NacosInstance,
    ) -> Result<()> {
        let own = instance.form()?;
        let mut form = vec![
            ("namespaceId", namespace),
            ("groupName", group),
            ("serviceName", service),
        ];
        form.extend(own.iter().map(|(name, value)| (*name, &**value)));
        self.send(method, path, &form).await.map(drop)
    }

    /// Makes a service without instances. While no more than `protect` (0 to 1) of its instances are healthy, Nacos
    /// calls all of them healthy.
    ///
    /// # Errors
    /// As [`get`](Self::get); when the service exists.
    pub async fn create_service(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        protect: f64,
    ) -> Result<()> {
        let form = [
            ("namespaceId", namespace),
            ("groupName", group),
            ("serviceName", service),
            ("protectThreshold", &protect.to_string()),
        ];
        self.post("/v1/ns/service", &form).await.map(drop)
    }

    /// Removes a service that has no instances.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete_service(&self, namespace: &str, group: &str, service: &str) -> Result<()> {
        let query = [
            ("namespaceId", namespace),
            ("groupName", group),
            ("serviceName", service),
        ];
        self.delete("/v1/ns/service", &query).await.map(drop)
    }

    /// Nacos no longer connects to the persistent instances of a service's cluster (usually `DEFAULT`).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn without_checks(
        &self,
        namespace: &str,
        group: &str,
        service: &str,
        cluster: &str,
    ) -> Result<()> {
        let form = [
            ("namespaceId", namespace),
            ("groupName", group),
            ("serviceName", service),
            ("clusterName", cluster),
            ("checkPort", "80"),
            ("useInstancePort4Check", "true"),
            ("healthChecker", r#"{"type":"NONE"}"#),
        ];
        self.put("/v1/ns/cluster", &form).await.map(drop)
    }

    /// Writes a configuration.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn publish_config(
        &self,
        namespace: &str,
        group: &str,
        data_id: &str,
        content: &str,
    ) -> Result<()> {
        let form = [
            ("tenant", namespace),
            ("group", group),
            ("dataId", data_id),
            ("content", content),
        ];
        self.post("/v1/cs/configs", &form).await.map(drop)
    }

    /// Removes a configuration.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete_config(&self, namespace: &str, group: &str, data_id: &str) -> Result<()> {
        let query = [("tenant", namespace), ("group", group), ("dataId", data_id)];
        self.delete("/v1/cs/configs", &query).await.map(drop)
    }

    /// The names of a group's services, at most 10 000.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn services(&self, namespace: &str, group: &str) -> Result<Vec<String>> {
        let query = [
            ("namespaceId", namespace),
            ("groupName", group),
            ("pageNo", "1"),
            ("pageSize", "10000"),
        ];
        let page = self.get("/v1/ns/service/list", &query).await?;
        let mut page: serde_json::Value = serde_json::from_str(&page)?;
        Ok(serde_json::from_value(page["doms"].take())?)
    }

    /// Makes a user who may read these namespaces (`public` is the name of the first one) and nothing else. Servers
    /// hear of it within 15 s.
    ///
    /// # Errors
    /// As [`get`](Self::get); when the name is taken.
    pub async fn add_reader(&self, name: &str, password: &str, namespaces: &[&str]) -> Result<()> {
        let role = format!("{name}-role");
        let user = [("username", name), ("password", password)];
        self.post("/v1/auth/users", &user).await?;
        let member = [("username", name), ("role", &*role)];
        self.post("/v1/auth/roles", &member).await?;
        for namespace in namespaces {
            let resource = format!("{namespace}:*:*");
            let right = [("role", &*role), ("resource", &*resource), ("action", "r")];
            self.post("/v1/auth/permissions", &right).await?;
        }
        Ok(())
    }
}
