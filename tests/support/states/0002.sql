BEGIN TRANSACTION;
CREATE TABLE acl_rules (
	instance_id CHAR(32) NOT NULL, 
	ip VARCHAR NOT NULL, 
	description VARCHAR NOT NULL, 
	CONSTRAINT pk_acl_rules PRIMARY KEY (instance_id, ip), 
	CONSTRAINT fk_acl_rules_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE
);
INSERT INTO "acl_rules" VALUES('3513e96e15c44bc6b0c1782f79f95558','0.0.0.0/0','Allow All');
INSERT INTO "acl_rules" VALUES('129bc828b5fe423684bcca478f3c53cb','0.0.0.0/0','Allow All');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE "api_keys" (
	access_key VARCHAR NOT NULL, 
	secret_hash VARCHAR NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	project_id CHAR(32), 
	default_project_id CHAR(32) NOT NULL, 
	created_at DATETIME NOT NULL, 
	read_only BOOLEAN DEFAULT 0 NOT NULL, 
	description VARCHAR DEFAULT '' NOT NULL, 
	CONSTRAINT pk_api_keys PRIMARY KEY (access_key), 
	CONSTRAINT uq_api_keys_secret_hash UNIQUE (secret_hash)
);
INSERT INTO "api_keys" VALUES('SCW1KW5L9W56KLKGQPAS','1aac7c673c3584ff279719be00b02095137fa20c30d8c5b6bd0b50810ea237e7','ac15bc1a778b44f0b43ee7b711fbd7cd',NULL,'ac15bc1a778b44f0b43ee7b711fbd7cd','2026-11-25 22:06:39.456238',0,'');
CREATE TABLE "endpoints" (
	id CHAR(32) NOT NULL, 
	instance_id CHAR(32) NOT NULL, 
	kind VARCHAR NOT NULL, 
	ip VARCHAR NOT NULL, 
	port BIGINT NOT NULL, 
	published BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	private_network_id CHAR(32), 
	service_ip VARCHAR, 
	provisioning_mode VARCHAR, 
	zone VARCHAR, 
	leaving BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_endpoints PRIMARY KEY (id), 
	CONSTRAINT uq_endpoints_port_ip UNIQUE (port, ip), 
	CONSTRAINT fk_endpoints_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE, 
	CONSTRAINT fk_endpoints_private_network_id FOREIGN KEY(private_network_id) REFERENCES private_networks (id)
);
INSERT INTO "endpoints" VALUES('c6d3e9a2934347f6b338132df4225e2d','3513e96e15c44bc6b0c1782f79f95558','load_balancer','127.0.0.1',28577,1,'2026-11-25 22:06:39.979966',NULL,NULL,NULL,NULL,0);
INSERT INTO "endpoints" VALUES('55a093ffcc2c4334ac0bf7ab483d5f66','129bc828b5fe423684bcca478f3c53cb','load_balancer','127.0.0.1',22569,1,'2026-11-25 22:06:40.013975',NULL,NULL,NULL,NULL,0);
CREATE TABLE instance_tags (
	instance_id CHAR(32) NOT NULL, 
	position BIGINT NOT NULL, 
	tag VARCHAR NOT NULL, 
	is_repeated BOOLEAN NOT NULL, 
	region VARCHAR NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	project_id CHAR(32) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_instance_tags PRIMARY KEY (instance_id, position), 
	CONSTRAINT fk_instance_tags_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE
);
INSERT INTO "instance_tags" VALUES('3513e96e15c44bc6b0c1782f79f95558',0,'a',0,'fr-par','ac15bc1a778b44f0b43ee7b711fbd7cd','ac15bc1a778b44f0b43ee7b711fbd7cd','2026-11-25 22:06:39.971660');
INSERT INTO "instance_tags" VALUES('129bc828b5fe423684bcca478f3c53cb',0,'a',0,'fr-par','ac15bc1a778b44f0b43ee7b711fbd7cd','ac15bc1a778b44f0b43ee7b711fbd7cd','2026-11-25 22:06:40.007017');
CREATE TABLE instances (
	id CHAR(32) NOT NULL, 
	region VARCHAR NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	project_id CHAR(32) NOT NULL, 
	name VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	engine VARCHAR NOT NULL, 
	engine_version VARCHAR NOT NULL, 
	node_type VARCHAR NOT NULL, 
	volume_type VARCHAR NOT NULL, 
	volume_class VARCHAR NOT NULL, 
	volume_size BIGINT NOT NULL, 
	is_ha_cluster BOOLEAN NOT NULL, 
	high_availability_mode VARCHAR NOT NULL, 
	encryption BOOLEAN NOT NULL, 
	settings JSON NOT NULL, 
	init_settings JSON NOT NULL, 
	backup_disabled BOOLEAN NOT NULL, 
	backup_frequency BIGINT NOT NULL, 
	backup_retention BIGINT NOT NULL, 
	backup_next_run_at DATETIME, 
	backup_start_hour BIGINT, 
	backup_same_region BOOLEAN NOT NULL, 
	logs_max_age_retention BIGINT, 
	logs_total_disk_retention BIGINT, 
	certificate VARCHAR, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_instances PRIMARY KEY (id)
);
INSERT INTO "instances" VALUES('3513e96e15c44bc6b0c1782f79f95558','fr-par','ac15bc1a778b44f0b43ee7b711fbd7cd','ac15bc1a778b44f0b43ee7b711fbd7cd','PostgreSQL-17','ready','PostgreSQL-17','17.11','db-dev-s','lssd','lssd',5000000000,0,'unknown_high_availability_mode',0,'{"effective_cache_size": "1300", "maintenance_work_mem": "150", "max_connections": "100", "max_parallel_workers": "0", "max_parallel_workers_per_gather": "0", "work_mem": "4"}','{}',1,24,7,'2026-11-26 22:06:39.971660',NULL,0,30,NULL,'-----BEGIN CERTIFICATE-----
MIICKzCCAdKgAwIBAgIUbyVD9cEsIs6duuAlqXl9rrtDsGMwCgYIKoZIzj0EAwIw
JjEQMA4GA1UECgwHT3BlblJEQjESMBAGA1UEAwwJMTI3LjAuMC4xMB4XDTI2MTEy
NTIyMDE0MFoXDTM2MTEyMjIyMDY0MFowJjEQMA4GA1UECgwHT3BlblJEQjESMBAG
A1UEAwwJMTI3LjAuMC4xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMtD5M+au
YTQrZtVBVcx48aTbvDLE4c8amh+Nl6IN+DDixgxE9TEmmB6EZI0g25NDqZaIKrIf
iDbAvjy+p2y4NqOB3TCB2jBfBgNVHREEWDBWgkNydy0zNTEzZTk2ZS0xNWM0LTRi
YzYtYjBjMS03ODJmNzlmOTU1NTgucmRiLmZyLXBhci5vcGVucmRiLmludGVybmFs
ggkxMjcuMC4wLjGHBH8AAAEwEgYDVR0TAQH/BAgwBgEB/wIBADAOBgNVHQ8BAf8E
BAMCAoQwEwYDVR0lBAwwCgYIKwYBBQUHAwEwHQYDVR0OBBYEFGWiPs3sBC6PtYlq
wFw1LuOaRQIPMB8GA1UdIwQYMBaAFGWiPs3sBC6PtYlqwFw1LuOaRQIPMAoGCCqG
SM49BAMCA0cAMEQCICfjazc2cxkEPXV6WsmWoTKCPX+J9XbqFUDtN78BDK9AAiBC
t5ygTXVcPPW1eeOFv5Ph1/gvsLZoDaoLd+SxpKEKJg==
-----END CERTIFICATE-----
','2026-11-25 22:06:39.971660');
INSERT INTO "instances" VALUES('129bc828b5fe423684bcca478f3c53cb','fr-par','ac15bc1a778b44f0b43ee7b711fbd7cd','ac15bc1a778b44f0b43ee7b711fbd7cd','MySQL-9','ready','MySQL-9','9.7.4','db-dev-s','lssd','lssd',5000000000,0,'unknown_high_availability_mode',0,'{"max_connections": "100"}','{}',1,24,7,'2026-11-26 22:06:40.007017',NULL,0,30,NULL,'-----BEGIN CERTIFICATE-----
MIICKzCCAdKgAwIBAgIURJD7u9WWUBek9dwC+bnZbJockhgwCgYIKoZIzj0EAwIw
JjEQMA4GA1UECgwHT3BlblJEQjESMBAGA1UEAwwJMTI3LjAuMC4xMB4XDTI2MTEy
NTIyMDE0M1oXDTM2MTEyMjIyMDY0M1owJjEQMA4GA1UECgwHT3BlblJEQjESMBAG
A1UEAwwJMTI3LjAuMC4xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYwQh8kpX
IvUH67nFEgC/QsnQlse9x+A8bNQ0eXlxkSUlrFrlA4CQ9WV1ZkbeBhPRR58Over+
rj7ayxNeMb2AaKOB3TCB2jBfBgNVHREEWDBWgkNydy0xMjliYzgyOC1iNWZlLTQy
MzYtODRiYy1jYTQ3OGYzYzUzY2IucmRiLmZyLXBhci5vcGVucmRiLmludGVybmFs
ggkxMjcuMC4wLjGHBH8AAAEwEgYDVR0TAQH/BAgwBgEB/wIBADAOBgNVHQ8BAf8E
BAMCAoQwEwYDVR0lBAwwCgYIKwYBBQUHAwEwHQYDVR0OBBYEFCSH2YAV/QHPvxP3
AdSHmgD66sg2MB8GA1UdIwQYMBaAFCSH2YAV/QHPvxP3AdSHmgD66sg2MAoGCCqG
SM49BAMCA0cAMEQCICVUkjNhSNM/hUG2j4DZ89za5FjmM/MxnonfwyizFa06AiAt
tRQ/InXFx6NphFHn1yNKCRkAyEY76RYeb3S+DpYdPQ==
-----END CERTIFICATE-----
','2026-11-25 22:06:40.007017');
CREATE TABLE ips (
	id CHAR(32) NOT NULL, 
	region VARCHAR NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	project_id CHAR(32) NOT NULL, 
	private_network_id CHAR(32) NOT NULL, 
	subnet_id CHAR(32) NOT NULL, 
	address VARCHAR NOT NULL, 
	is_ipv6 BOOLEAN NOT NULL, 
	tags JSON NOT NULL, 
	endpoint_id CHAR(32), 
	mac_address VARCHAR, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_ips PRIMARY KEY (id), 
	CONSTRAINT fk_ips_endpoint_id FOREIGN KEY(endpoint_id) REFERENCES endpoints (id) ON DELETE CASCADE, 
	CONSTRAINT fk_ips_private_network_id FOREIGN KEY(private_network_id) REFERENCES private_networks (id), 
	CONSTRAINT fk_ips_subnet_id FOREIGN KEY(subnet_id) REFERENCES subnets (id), 
	CONSTRAINT uq_ips_private_network_id_address UNIQUE (private_network_id, address)
);
CREATE TABLE nodes (
	id CHAR(32) NOT NULL, 
	instance_id CHAR(32) NOT NULL, 
	role VARCHAR NOT NULL, 
	address VARCHAR NOT NULL, 
	port BIGINT NOT NULL, 
	uid BIGINT, 
	desired VARCHAR NOT NULL, 
	CONSTRAINT pk_nodes PRIMARY KEY (id), 
	CONSTRAINT fk_nodes_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id) ON DELETE CASCADE, 
	CONSTRAINT uq_nodes_port_address UNIQUE (port, address), 
	CONSTRAINT uq_nodes_uid UNIQUE (uid)
);
INSERT INTO "nodes" VALUES('964b30f97c7d4bfeaa2e296569fdb43b','3513e96e15c44bc6b0c1782f79f95558','main','127.0.0.1',18437,250944,'running');
INSERT INTO "nodes" VALUES('4114337118e0409eb89fccc91d40b632','129bc828b5fe423684bcca478f3c53cb','main','127.0.0.1',16832,210755,'running');
CREATE TABLE operations (
	id CHAR(32) NOT NULL, 
	instance_id CHAR(32) NOT NULL, 
	kind VARCHAR NOT NULL, 
	parameters JSON NOT NULL, 
	status VARCHAR NOT NULL, 
	error VARCHAR, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_operations PRIMARY KEY (id)
);
INSERT INTO "operations" VALUES('0c2d2b6e833d4bc3888e0dcb9db528a4','3513e96e15c44bc6b0c1782f79f95558','create_instance','{}','done',NULL,'2026-11-25 22:06:39.979261','2026-11-25 22:06:39.984363','2026-11-25 22:06:40.867978');
INSERT INTO "operations" VALUES('39bd0b2da35f45a08b03a096381117e0','129bc828b5fe423684bcca478f3c53cb','create_instance','{}','done',NULL,'2026-11-25 22:06:40.013810','2026-11-25 22:06:40.023646','2026-11-25 22:06:44.125478');
CREATE TABLE private_networks (
	id CHAR(32) NOT NULL, 
	region VARCHAR NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	project_id CHAR(32) NOT NULL, 
	vpc_id CHAR(32) NOT NULL, 
	name VARCHAR NOT NULL, 
	tags JSON NOT NULL, 
	dhcp_enabled BOOLEAN NOT NULL, 
	default_route_propagation_enabled BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_private_networks PRIMARY KEY (id), 
	CONSTRAINT fk_private_networks_vpc_id FOREIGN KEY(vpc_id) REFERENCES vpcs (id)
);
CREATE TABLE projects (
	id CHAR(32) NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	name VARCHAR NOT NULL, 
	description VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, updated_at DATETIME DEFAULT '1970-01-01 00:00:00' NOT NULL, 
	CONSTRAINT pk_projects PRIMARY KEY (id)
);
INSERT INTO "projects" VALUES('ac15bc1a778b44f0b43ee7b711fbd7cd','ac15bc1a778b44f0b43ee7b711fbd7cd','default','','2026-11-25 22:06:39.454311','2026-11-25 22:06:39.454318');
CREATE TABLE subnets (
	id CHAR(32) NOT NULL, 
	private_network_id CHAR(32) NOT NULL, 
	position BIGINT NOT NULL, 
	subnet VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_subnets PRIMARY KEY (id), 
	CONSTRAINT fk_subnets_private_network_id FOREIGN KEY(private_network_id) REFERENCES private_networks (id) ON DELETE CASCADE, 
	CONSTRAINT uq_subnets_subnet UNIQUE (subnet)
);
CREATE TABLE vpcs (
	id CHAR(32) NOT NULL, 
	region VARCHAR NOT NULL, 
	organization_id CHAR(32) NOT NULL, 
	project_id CHAR(32) NOT NULL, 
	name VARCHAR NOT NULL, 
	tags JSON NOT NULL, 
	is_default BOOLEAN NOT NULL, 
	routing_enabled BOOLEAN NOT NULL, 
	custom_routes_propagation_enabled BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_vpcs PRIMARY KEY (id)
);
CREATE INDEX ix_instances_count ON instances (region, organization_id);
CREATE INDEX ix_instances_listing ON instances (region, organization_id, created_at, id, name);
CREATE INDEX ix_instances_name ON instances (region, organization_id, name, id);
CREATE INDEX ix_instances_project ON instances (region, project_id, created_at, id);
CREATE INDEX ix_instances_status ON instances (region, organization_id, status, id);
CREATE INDEX ix_operations_instance_id ON operations (instance_id);
CREATE INDEX ix_operations_status_created_at ON operations (status, created_at);
CREATE INDEX ix_projects_organization_id ON projects (organization_id);
CREATE INDEX ix_instance_tags_listing ON instance_tags (tag, region, organization_id, is_repeated, created_at, instance_id, project_id);
CREATE INDEX ix_nodes_desired ON nodes (desired);
CREATE INDEX ix_nodes_instance_id ON nodes (instance_id);
CREATE INDEX ix_vpcs_listing ON vpcs (region, organization_id, created_at);
CREATE INDEX ix_private_networks_listing ON private_networks (region, organization_id, created_at);
CREATE INDEX ix_private_networks_vpc_id ON private_networks (vpc_id);
CREATE INDEX ix_subnets_private_network_id ON subnets (private_network_id);
CREATE INDEX ix_ips_endpoint_id ON ips (endpoint_id);
CREATE INDEX ix_ips_listing ON ips (region, organization_id, created_at);
CREATE INDEX ix_endpoints_instance_id ON endpoints (instance_id);
CREATE INDEX ix_endpoints_private_network_id ON endpoints (private_network_id);
COMMIT;
