from dynlearn.config import ServeConfig
from dynlearn_services.server.app import create_app
from dynlearn_services.server.service import Service


def config(name="arm", **changes):
    return ServeConfig(model=name, **{"port": 0} | changes)


def service_of(registry, **changes):
    return Service(config("arm", **changes), registry.root)


def test_ready_only_after_warm_up(walking, call):
    with service_of(walking) as service:
        app = create_app(service)
        assert call(app, "/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/arm/ready", "/v2/models/arm/versions/2/ready"):
            answer = call(app, path)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert "warming up" in answer.json()["error"]
        service.warm_up()
        assert call(app, "/v2/health/ready").json() == {"ready": True}
        service.is_draining = True
        assert call(app, "/v2/health/ready").status_code == 503
