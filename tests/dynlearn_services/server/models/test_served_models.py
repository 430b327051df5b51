import asyncio
import shutil
import threading
import time
import weakref
from functools import partial

import pytest
import torch

from dynlearn.errors import CorruptData, InvalidInput, NotFound, Unavailable
from dynlearn.protocol.metadata import Limits
from dynlearn.registry import Registry
from dynlearn.storage.checksums import write_checksums
from dynlearn_services.server.models import memory
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.metadata import describe
from dynlearn_services.server.models.served_models import ServedModels

LIMIT = 1.0
LIMITS = Limits(max_rows=1, max_body_bytes=2, max_answer_bytes=3)


@pytest.fixture
def serve(metrics):
    opened = []

    def serve(registry, *references, limit=LIMIT, warm=LoadedModel.warm_up):
        models = ServedModels(registry, references, torch.device("cpu"), "float32", limit, metrics)
        opened.append(models)
        models.open(warm)
        return models

    yield serve
    for models in opened:
        models.close()


def within(seconds, holds):
    """Wait until something holds, and say whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False


def states(models):
    return {(each.name, each.version): (each.state, each.reason) for each in models.index()}


def test_nothing_answers_before_it_is_warm(arm, metrics):
    models = ServedModels(arm, ["arm"], torch.device("cpu"), "float32", LIMIT, metrics)
    with pytest.raises(Unavailable, match="warming up"):
        models.find("arm")
    warmed = []
    models.open(lambda loaded: warmed.append(loaded.version))
    assert (models.find("arm").version, warmed) == ("2", ["2"])
    models.close()


def test_models_predict_in_the_precision_asked_for(arm, metrics):
    models = ServedModels(arm, ["arm"], torch.device("cpu"), "bfloat16", LIMIT, metrics)
    models.open(LoadedModel.warm_up)
    for loaded in (models.find("arm"), models.load_version("arm", "1")):
        assert loaded.model.precision == "bfloat16"
        assert describe(loaded, [], None, LIMITS).parameters.precision == "bfloat16"
    models.close()


def test_a_new_version_takes_over_within_a_second(arm, make_model, serve):
    warmed = []
    models = serve(arm, "arm", warm=lambda loaded: warmed.append(loaded.version))
    before = models.find("arm")
    arm.publish("arm", make_model(seed=3).save)
    assert within(1, lambda: models.find("arm").version == "3")
    assert warmed == ["2", "3"]
    assert models.load_version("arm", "2") is before
    arm.set_alias("arm", "champion", "1")
    assert within(1, lambda: models.find("arm").version == "1")
    # It is still there: going back costs nothing.
    arm.set_alias("arm", "champion", "2")
    assert within(1, lambda: models.find("arm") is before)


def test_an_alias_and_a_version_are_followed_alone(arm, make_model, serve):
    arm.set_alias("arm", "beta", "1")
    by_alias, by_version = serve(arm, "arm@beta"), serve(arm, "arm/1")
    arm.publish("arm", make_model(seed=3).save)
    arm.set_alias("arm", "beta", "2")
    assert within(1, lambda: by_alias.find("arm").version == "2")
    assert by_version.find("arm").version == "1"


def test_a_corrupt_version_changes_nothing(arm, make_model, serve):
    models = serve(arm, "arm")

    def truncated(folder):
        make_model(seed=3).save(folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])

    arm.publish("arm", truncated)
    assert within(2, lambda: "safetensors" in states(models)["arm", "3"][1])
    assert models.find("arm").version == "2"
    assert states(models)["arm", "2"] == ("READY", "")
    with pytest.raises(Unavailable, match="version 3 of model arm cannot be served"):
        models.load_version("arm", "3")
    arm.publish("arm", make_model(seed=4).save)
    assert within(1, lambda: models.find("arm").version == "4")


def test_a_fault_of_one_version_does_not_end_the_watch(arm, make_model, serve):
    failed = []

    def warm(loaded):
        if loaded.version == "3":
            failed.append(loaded.version)
            raise RuntimeError("of this version")

    models = serve(arm, "arm", warm=warm)
    arm.publish("arm", make_model(seed=3).save)
    assert within(2, lambda: failed)
    assert models.find("arm").version == "2"
    arm.publish("arm", make_model(seed=4).save)
    assert within(2, lambda: models.find("arm").version == "4")


def test_a_version_deleted_from_the_registry_goes_on_answering(arm, serve):
    models = serve(arm, "arm")
    pinned = models.load_version("arm", "1")
    shutil.rmtree(arm.root / "arm" / "1")
    shutil.rmtree(arm.root / "arm" / "2")
    time.sleep(0.6)
    assert models.load_version("arm", "1") is pinned
    assert models.find("arm").version == "2"
    assert models.versions("arm") == ["1", "2"]


def test_a_version_is_found_from_an_event_loop(arm, serve):
    models = serve(arm, "arm")
    assert asyncio.run(models.find_version("arm", None)) is models.find("arm")
    found = asyncio.run(models.find_version("arm", "1"))
    assert found.version == "1"
    assert asyncio.run(models.find_version("arm", "1")) is found
    with pytest.raises(NotFound, match="version of model arm, got '3'"):
        asyncio.run(models.find_version("arm", "3"))


def test_the_version_asked_for_longest_ago_leaves_first(arm, make_model, serve):
    for seed in (3, 4):
        arm.publish("arm", make_model(seed=seed).save)
    size = LoadedModel("arm", "1", make_model()).size
    models = serve(arm, "arm", limit=2.5 * size / 2**30)
    models.load_version("arm", "1")
    models.load_version("arm", "2")
    models.load_version("arm", "1")
    models.load_version("arm", "3")
    assert [states(models)["arm", v][0] == "READY" for v in "1234"] == [True, False, True, True]
    assert models.load_version("arm", "2").version == "2"
    assert [states(models)["arm", v][0] == "READY" for v in "1234"] == [False, True, True, True]


def test_what_was_counted_of_a_version_leaves_with_it(arm, make_model, serve, metrics):
    arm.publish("arm", make_model(seed=3).save)
    size = LoadedModel("arm", "1", make_model()).size
    models = serve(arm, "arm", limit=1.5 * size / 2**30)
    for version in "123":
        models.load_version("arm", version)
        metrics.observe_request("arm", version, "infer", "ok", 0.1)
        metrics.observe_batch("arm", version, 1, time.monotonic())

    def counted():
        return {each for each in "123" if f'version="{each}"'.encode() in metrics.page()[0]}

    assert counted() == {"2", "3"}
    # An answer that was under way when its version left.
    metrics.observe_request("arm", "1", "infer", "ok", 0.1)
    models.load_version("arm", "1")
    models.load_version("arm", "2")
    assert counted() == {"3"}
    models.unload("arm")
    assert counted() == set()
    assert b'model="arm"' not in b"".join(
        line for line in metrics.page()[0].splitlines() if line.startswith(b"dynlearn_served")
    )


def test_memory_is_handed_back_when_nothing_holds_what_has_left(
    arm, make_model, serve, monkeypatch
):
    arm.publish("arm", make_model(seed=3).save)
    size = LoadedModel("arm", "1", make_model()).size
    models = serve(arm, limit=1.5 * size / 2**30)
    held, gone = [], []
    monkeypatch.setattr(memory, "hand_back", lambda: gone.append(held[-1]() is None))
    held.append(weakref.ref(models.load_version("arm", "1").model))
    models.load_version("arm", "2")
    assert gone == [True]
    arm.publish("leg", make_model().save)
    assert within(1, lambda: models.names == ["arm", "leg"])
    held.append(weakref.ref(models.find("leg").model))
    models.unload("leg")
    assert gone == [True, True]


def test_all_models_are_served_where_none_is_named(arm, make_model, serve):
    models = serve(arm)
    assert models.names == ["arm"]
    arm.publish("leg", make_model().save)
    assert within(1, lambda: models.names == ["arm", "leg"])
    assert models.find("leg").version == "1"


def test_load_and_unload(arm, make_model, serve):
    models = serve(arm)
    models.unload("arm")
    time.sleep(0.6)
    with pytest.raises(NotFound):
        models.find("arm")
    assert {state for state, _ in states(models).values()} == {"UNAVAILABLE"}
    models.load("arm")
    assert models.find("arm").version == "2"
    with pytest.raises(NotFound):
        models.unload("leg")
    with pytest.raises(NotFound):
        models.load("leg")
    arm.publish("leg", lambda folder: (folder / "config.json").write_text("{}"))
    with pytest.raises(Unavailable, match="version 1 of model leg cannot be served"):
        models.load("leg")
    assert models.names == ["arm"]


def test_a_pinned_model_is_loaded_as_it_was_pinned(arm, serve):
    models = serve(arm, "arm/1")
    models.load("arm")
    assert models.find("arm").version == "1"
    models.unload("arm")
    models.load("arm")
    # Two looks at the registry, whose champion is another.
    time.sleep(0.6)
    assert models.find("arm").version == "1"


@pytest.mark.parametrize("name", ["arm@champion", "arm/1", "arn"])
def test_what_is_loaded_is_a_model(arm, serve, name):
    models = serve(arm, "arm")
    with pytest.raises(NotFound, match="expected a model, got"):
        models.load(name)


def test_an_altered_version_is_refused_and_the_index_says_why(arm, serve):
    models = serve(arm, "arm/2")
    weights = arm.resolve("arm/1").folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 0x10
    weights.write_bytes(content)
    with pytest.raises(Unavailable, match=r"expected model\.safetensors as it was published"):
        models.load_version("arm", "1")
    state, reason = states(models)["arm", "1"]
    assert state == "UNAVAILABLE"
    assert "expected model.safetensors as it was published" in reason
    assert str(arm.root) not in reason
    with pytest.raises(CorruptData, match=str(weights)):
        serve(arm, "arm/1")


def test_a_damaged_version_is_read_once_whoever_asks(arm, serve, monkeypatch, caplog):
    models = serve(arm, "arm/2")
    weights = arm.resolve("arm/1").folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    read = []
    load = LoadedModel.load.__func__

    def count(version, **options):
        read.append(version.version)
        return load(LoadedModel, version, **options)

    monkeypatch.setattr(models._reader, "_read", partial(count, device="cpu", precision="float32"))

    async def ask_together():
        return await asyncio.gather(
            *(models.find_version("arm", "1") for _ in range(30)), return_exceptions=True
        )

    answers = asyncio.run(ask_together())
    assert {type(answer) for answer in answers} == {Unavailable}
    assert {answer.http_status for answer in answers} == {503}
    assert not [answer for answer in answers if str(arm.root) in str(answer)]
    assert read == ["1"]
    # The log says where.
    assert len([line for line in caplog.messages if str(weights) in line]) == 1
    weights.write_bytes(whole)
    assert states(models)["arm", "1"] == ("UNAVAILABLE", "not loaded")
    assert models.load_version("arm", "1").version == "1"
    assert read == ["1", "1"]


def test_who_waits_for_a_version_holds_up_nobody_else(arm, serve):
    entered, free = threading.Event(), threading.Event()

    def warm(loaded):
        if loaded.version == "1":
            entered.set()
            assert free.wait(5)

    models = serve(arm, "arm/2", warm=warm)

    async def ask_together():
        waiting = [asyncio.create_task(models.find_version("arm", "1")) for _ in range(40)]
        await asyncio.to_thread(entered.wait)
        # The event loop's own threads, which unpack bodies, are free.
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 1) == "free"
        free.set()
        return await asyncio.gather(*waiting)

    assert len(set(asyncio.run(ask_together()))) == 1


def test_what_fails_but_is_no_file_is_tried_again(arm, serve, monkeypatch):
    monkeypatch.setattr("dynlearn_services.server.models.version_reader._RETRY_SECONDS", 0.1)
    warmed = []

    def warm(loaded):
        warmed.append(loaded.version)
        if warmed.count("1") == 1:
            raise RuntimeError("secret /path")

    models = serve(arm, "arm/2", warm=warm)
    for _ in range(3):
        with pytest.raises(Unavailable, match="its log holds the cause") as caught:
            models.load_version("arm", "1")
    assert "secret" not in str(caught.value) + states(models)["arm", "1"][1]
    assert warmed.count("1") == 1
    time.sleep(0.1)
    assert models.load_version("arm", "1").version == "1"


def test_a_version_without_checksums_is_marked_and_refused(arm, serve, metrics):
    (arm.resolve("arm/1").folder / "checksums.json").unlink()
    models = serve(arm, "arm/2")
    assert "no checksums.json" in states(models)["arm", "1"][1]
    with pytest.raises(Unavailable, match="--allow-unchecked"):
        models.load_version("arm", "1")
    with pytest.raises(CorruptData, match="--allow-unchecked"):
        serve(arm, "arm/1")
    allowing = ServedModels(
        arm, ["arm/1"], torch.device("cpu"), "float32", LIMIT, metrics, allow_unchecked=True
    )
    allowing.open(LoadedModel.warm_up)
    assert allowing.find("arm").version == "1"
    state, reason = states(allowing)["arm", "1"]
    assert state == "READY"
    assert "no checksums.json" in reason
    allowing.close()


def replace(version, make_model, seed):
    """Put another model in place of a version, under its number, by hand."""
    aside = version.folder.with_name("aside")
    aside.mkdir()
    make_model(seed=seed).save(aside)
    write_checksums(aside)
    shutil.rmtree(version.folder)
    aside.rename(version.folder)


@pytest.mark.parametrize("asked", ["current", "beside"])
def test_another_model_under_the_same_number_is_seen(arm, make_model, serve, draw_rows, asked):
    models = serve(arm, "arm/1" if asked == "current" else "arm/2")
    before = models.load_version("arm", "1")
    replace(arm.resolve("arm/1"), make_model, seed=9)
    assert within(2, lambda: models.load_version("arm", "1") is not before)
    if asked == "current":
        assert within(2, lambda: models.find("arm") is models.load_version("arm", "1"))
    rows = draw_rows(3)
    served = models.load_version("arm", "1").model.predict(*rows).mean
    assert torch.equal(served, make_model(seed=9).predict(*rows).mean)


def test_the_same_model_once_more_is_not_read_anew(arm, serve):
    models = serve(arm, "arm/2")
    before = models.find("arm")
    folder = arm.resolve("arm/2").folder
    shutil.copytree(folder, folder.with_name("aside"))
    shutil.rmtree(folder)
    folder.with_name("aside").rename(folder)
    time.sleep(0.6)
    assert models.find("arm") is before


def test_what_cannot_be_served(arm, tmp_path, metrics):
    with pytest.raises(NotFound, match="did you mean arm"):
        ServedModels(arm, ["arn"], torch.device("cpu"), "float32", LIMIT, metrics)
    with pytest.raises(InvalidInput, match="one reference to a model, got arm/1 and arm;"):
        ServedModels(arm, ["arm/1", "arm"], torch.device("cpu"), "float32", LIMIT, metrics)
    with pytest.raises(NotFound, match="dynlearn train"):
        ServedModels(
            Registry(tmp_path / "empty"), [], torch.device("cpu"), "float32", LIMIT, metrics
        )
