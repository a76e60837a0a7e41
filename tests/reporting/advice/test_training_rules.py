from __future__ import annotations

from advice_facts import (
    EVEN,
    MIXED,
    advice,
    assert_only_advice,
    falling,
    judge_model,
    make_history,
    make_training,
    with_head,
)

from trainer.reporting.advice import Proportion

FROM_SCRATCH = {"pretrained": False, "auto_is_pretrained": False}


def test_no_better_than_guessing_on_training_images() -> None:
    guessed = make_history(0.26, 0.25, 0.25, training=0.26)
    confusion = [[10, 0, 0, 0]] * 4
    run = make_training({"learning_rate": 0.3}, learning_rate=0.3, history=guessed)
    assert_only_advice(["smaller learning rate than 0.3", "after 3 epochs"], "", confusion, run)  # the network's own
    # The rate is the network's own already: a tenth of it.
    run = make_training(history=guessed)
    assert_only_advice(["smaller learning rate"], " --learning-rate=0.0001", confusion, run)
    # 220 of 800 may be chance; 240 are not.
    assert "smaller" in advice(confusion, make_training(history=make_history(0.3, training=0.275)))[0][0]
    assert "smaller" not in advice(confusion, make_training(history=make_history(0.3, training=0.3)))[0][0]
    # So few steps say nothing.
    assert "smaller" not in advice(confusion, make_training(history=guessed, steps=20))[0][0]


def test_time_limit_within_the_first_epoch() -> None:
    facts = {"steps": 8, "end": "no time", "history": make_history(0.8)}
    text, command = advice(MIXED, make_training({"time_limit": 240.0}, **facts))[0]
    assert "8 in 100 of the training images" in text
    assert command == " --time-limit=480s"
    whole = make_training({"time_limit": 240.0}, **facts | {"steps": 100})
    assert not any("there was time" in text for text, _ in advice(MIXED, whole))


def test_too_few_steps_from_scratch() -> None:
    expected = ["train longer", "200 steps", "had 12"]
    facts = FROM_SCRATCH | {"steps": 12}
    assert_only_advice(expected, "", MIXED, make_training({"epochs": 3, "batch_size": 128}, **facts))
    run = make_training({"time_limit": 60.0, "dropout": 0.1}, **facts)
    assert_only_advice(expected, " --time-limit=1020s --dropout=0.1", MIXED, run)
    assert advice(EVEN, make_training({"epochs": 3}, steps=12)) == []  # the head of a pretrained network needs none
    run = make_training({"epochs": 3}, **facts | {"auto_is_pretrained": True})
    assert_only_advice(["use --model auto"], "", MIXED, run)
    few_mistakes = [[49, 1, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]
    assert advice(few_mistakes, make_training({"epochs": 3}, **facts)) == []


def test_from_scratch_where_auto_is_pretrained() -> None:
    options = {"model": "branched_cnn", "epochs": 30, "image_size": (64, 64), "kernel_size": 5, "seed": 3}
    assert_only_advice(["use --model auto"], " --seed=3", MIXED, make_training(options, pretrained=False))
    assert advice(MIXED, make_training(options, **FROM_SCRATCH)) == []


def test_training_made_a_pretrained_network_worse() -> None:
    history = with_head(make_history(0.8, 0.1, 0.2))
    run = make_training({"learning_rate": 0.3}, learning_rate=0.3, history=history, steps=36)
    text, command = advice(MIXED, run, val=Proportion(160, 200))[0]
    for part in ("smaller learning rate than 0.3", "80 in 100", "at most 20"):
        assert part in text
    assert command == ""
    run = make_training(history=with_head(make_history(0.8, 0.78)))
    assert "smaller" not in str(judge_model(MIXED, run, val=Proportion(160, 200)).advice)


def test_head_only() -> None:
    run = make_training({"fine_tune": "none"}, steps=0)
    assert_only_advice(["train the whole network", "--fine-tune none"], "", MIXED, run)
    assert advice([[50, 0], [1, 49]], run) == []


def test_images_left_out_by_limit() -> None:
    run = make_training({"limit": 800, "epochs": 9}, limited=1234)
    assert_only_advice(["--limit left 1,234 training images out"], " --epochs=9", MIXED, run)


def test_validation_still_improving() -> None:
    expected = ["train longer", "0.60 in epoch 3, 0.50"]
    history = falling(0.9, 0.7, 0.6, 0.5)
    assert_only_advice(expected, " --epochs=8", MIXED, make_training(history=history))
    run = make_training({"time_limit": 60.0}, history=history, end="no time")
    assert_only_advice(expected, " --time-limit=120s", MIXED, run)
    run = make_training({"time_limit": 60.0, "epochs": 4}, history=history)
    assert_only_advice(expected, " --time-limit=120s --epochs=8", MIXED, run)
    assert advice(MIXED, make_training(history=falling(0.9, 0.7, 0.51, 0.5))) == []  # by less than an epoch's noise
    assert advice(MIXED, make_training(history=falling(0.9, 0.7, 0.6, 0.7))) == []
    assert advice(MIXED, make_training(history=[*history[:-1], history[-1] | {"val_accuracy": 0.5}])) == []
    # A loss of 0 cannot improve.
    assert advice(MIXED, make_training(history=falling(0.9, 0.0, 0.0, 0.0))) == []
    # Never together with the advice against more epochs.
    run = make_training(history=history, end="no better")
    assert_only_advice(["more epochs do not help"], " --learning-rate=0.00033", MIXED, run)


def test_commands_spell_other_options_too() -> None:
    options = {"time_limit": 90.0, "image_size": (32, 48), "name": "it"}
    run = make_training(options, history=falling(0.9, 0.7, 0.6, 0.5), end="no time")
    assert_only_advice(["train longer"], " --time-limit=180s --image-size=32x48 --name=it", MIXED, run)
    assert run.config.time_limit == 90


def test_commands_stay_within_the_range_of_an_option() -> None:
    improving = falling(*(0.9 - 1e-4 * epoch for epoch in range(6000)))
    run = make_training({"epochs": 6000, "time_limit": 3.5e6}, history=improving)
    assert [command for _, command in advice(MIXED, run)] == [" --time-limit=3600000s --epochs=10000"]
    guessed = make_history(0.25, training=0.25)
    run = make_training({"learning_rate": 1e-8}, learning_rate=1e-8, history=guessed)
    assert [command for _, command in advice([[10, 0, 0, 0]] * 4, run)] == [" --learning-rate=1e-08"]


def test_stopped_early() -> None:
    history = make_history(0.7, 0.8, 0.75, training=0.8)
    run = make_training(history=history, end="no better")
    assert_only_advice(["best in epoch 2 of 3 epochs"], " --learning-rate=0.00033", MIXED, run)
    head = [history[0] | {"epoch": 0, "val_accuracy": 0.82}, *history]
    ((text, _),) = advice(MIXED, make_training(history=head, end="no better"))
    assert "best before the first of 3 epochs" in text
    assert advice([[50, 0], [1, 49]], make_training(end="no better")) == []
